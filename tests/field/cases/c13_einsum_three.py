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

CASE = dict(report="pytorch/pytorch#124625", symptom="einsum of four operands keeps the exported batch")


class Ein(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 4, 3))
        self.register_buffer("basis", torch.randn(3, 6, 6))
        self.b = nn.Parameter(torch.zeros(5))

    def forward(self, x):
        return torch.einsum("yxa,aij,...xj->...yi", self.w, self.basis, x) + self.b[:, None]


@architecture(
    "field/ein", family="geometry", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 2, 4, 6)),))
)
def ein() -> nn.Module:
    """Equivariant linear layer."""
    return Ein()
