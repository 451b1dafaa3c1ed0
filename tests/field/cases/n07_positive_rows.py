"""Rows are chosen by their values."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "x[mask] has as many rows as the data decides"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        y = self.a(x)
        kept = y[y.sum(-1) > 0]
        return self.b(kept).sum(0)


@architecture(
    "field/n07_positive_rows",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n07_positive_rows() -> nn.Module:
    """Rows are chosen by their values."""
    return Net()


JUDGE = {"length": [1, 12, 30]}


def extra(draw):
    none = draw()
    none["x"][:] = 0
    return [none]
