"""A split into parts made of the size."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "split(n // 3) gives another number of parts at other lengths"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        parts = self.a(x).split(max(1, x.shape[1] // 3), dim=1)
        return self.b(torch.stack([part.mean(1) for part in parts]).sum(0) / len(parts))


@architecture(
    "field/n10_split_in_thirds",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n10_split_in_thirds() -> nn.Module:
    """A split into parts made of the size."""
    return Net()


JUDGE = {"length": [1, 2, 3, 4, 12, 13, 14, 50]}
