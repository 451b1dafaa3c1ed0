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
    report="speechbrain/speechbrain#1750 (len in a trace), ccdv-ai/convert_checkpoint_to_lsg#15 (2026)",
    symptom="len(x) decides: another warning of the tracer than for x.shape[0]",
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 8)
        self.b = nn.Linear(8, 3)

    def forward(self, frames):
        h = self.a(frames)
        h = h.relu() if len(frames) <= 64 else F.leaky_relu(h, 0.2)
        return self.b(h)


@architecture(
    "field/len_branch",
    family="audio",
    signature=Signature(
        inputs=(InputSpec(name="frames", shape=("frames", 6)),), axes=(Axis(name="frames", maximum=500, sample=16),)
    ),
)
def len_branch() -> nn.Module:
    """Long inputs take another activation."""
    return Net()


JUDGE = dict(frames=[1, 16, 64, 65, 300])
