"""Positions beyond the table are interpolated."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "a length above 32 interpolates the table"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.positions = nn.Parameter(torch.randn(1, 32, 8))

    def forward(self, x):
        n = x.shape[1]
        if n <= 32:
            table = self.positions[:, :n]
        else:
            table = F.interpolate(self.positions.transpose(1, 2), size=n, mode="linear").transpose(1, 2)
        return (self.a(x) + table).tanh().mean(1)


@architecture(
    "field/n19_positions_interpolated",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n19_positions_interpolated() -> nn.Module:
    """Positions beyond the table are interpolated."""
    return Net()


JUDGE = {"length": [1, 12, 32, 33, 100]}
