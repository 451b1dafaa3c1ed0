"""Slices that count from the end."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "the last five rows, or all where there are fewer"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        return self.b(self.a(x)[:, -5:].sum(1))


@architecture(
    "field/n24_negative_slices",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n24_negative_slices() -> nn.Module:
    """Slices that count from the end."""
    return Net()


JUDGE = {"length": [1, 2, 4, 5, 6, 12, 40]}
