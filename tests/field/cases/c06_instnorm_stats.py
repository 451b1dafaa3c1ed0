import math
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from recast_plugins import (
    Axis,
    Field,
    InputSpec,
    Integers,
    Mask,
    Normal,
    OutputSpec,
    Signature,
    Uniform,
    architecture,
)

CASE = dict(
    report="pytorch/pytorch#128501",
    symptom="InstanceNorm with tracked statistics: export refuses a dynamic batch, or ignores the statistics",
)


class IN(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv1d(3, 8, 3, padding=1)
        self.n = nn.InstanceNorm1d(8, affine=True, track_running_stats=True)
        self.m = nn.InstanceNorm1d(8, affine=True)

    def forward(self, signal):
        return self.m(F.gelu(self.n(self.c(signal))))


@architecture(
    "field/instnorm",
    family="cnn",
    signature=Signature(
        inputs=(InputSpec(name="signal", shape=("batch", 3, "time")),),
        axes=(Axis(name="batch"), Axis(name="time", minimum=2, sample=16)),
    ),
)
def instnorm() -> nn.Module:
    """InstanceNorm both ways."""
    return IN()


JUDGE = dict(time=[2, 3, 16, 40])
