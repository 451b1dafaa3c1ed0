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
    report="pytorch/pytorch#159249 (2025), NVIDIA/Model-Optimizer#262 (2025)",
    symptom="nn.RMSNorm with its default eps (None)",
)


class Rms(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 16)
        self.n = nn.RMSNorm(16)
        self.b = nn.Linear(16, 4)

    def forward(self, x):
        return self.b(self.n(F.silu(self.a(x))))


@architecture(
    "field/rms", family="transformer", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 5, 8)),))
)
def rms() -> nn.Module:
    """RMSNorm as it comes."""
    return Rms()
