"""Rows are added where an index says."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "scatter of data-dependent indices"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x, index):
        out = torch.zeros(x.shape[0], 10, 8, dtype=x.dtype)
        out = out.scatter_add(1, index.unsqueeze(-1).expand(-1, -1, 8), self.a(x))
        return self.b(out)


@architecture(
    "field/n26_scattered_by_index",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", "length", 8)),
            InputSpec(name="index", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=9)),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n26_scattered_by_index() -> nn.Module:
    """Rows are added where an index says."""
    return Net()


JUDGE = {"length": [1, 12, 40]}


def extra(draw):
    same = draw()
    same["index"][:] = 3
    return [same]
