"""Another way where a mask is all zero."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "if mask.any() is answered by the sample"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x, mask):
        y = self.a(x)
        if not bool(mask.any()):
            return self.b(y.mean(1)) - 1
        return self.b((y * mask.unsqueeze(-1).to(y.dtype)).sum(1))


@architecture(
    "field/n06_any_in_mask",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", "length", 8)),
            InputSpec(name="mask", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=1)),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n06_any_in_mask() -> nn.Module:
    """Another way where a mask is all zero."""
    return Net()


JUDGE = {"length": [1, 12, 30]}


def extra(draw):
    empty = draw()
    empty["mask"][:] = 0
    return [empty]
