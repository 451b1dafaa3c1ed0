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
    report="ccdv-ai/convert_checkpoint_to_lsg#15 kind; position bias of T5/Swin at other sizes",
    symptom="a Python number made of the size (rounded, halved, powers of two) frozen in the trace without a branch",
)


class P2(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 6)

    def forward(self, x):
        t = x.shape[1]
        s = 1.0 / math.sqrt(t)
        n = 2 ** int(math.log2(t))
        y = self.l(x) * s
        return y[:, :n].mean(1) + torch.linspace(0, 1, t).mean()


@architecture(
    "field/pow2",
    family="audio",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "time", 6)),),
        axes=(Axis(name="batch"), Axis(name="time", maximum=300, sample=16)),
    ),
)
def pow2() -> nn.Module:
    """Largest power of two."""
    return P2()


JUDGE = dict(time=[1, 15, 16, 17, 31, 32, 100, 300])
