"""The number of distinct tokens decides the result."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "unique gives as many rows as the data has values"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 6)

    def forward(self, ids):
        return self.table(torch.unique(ids)).mean(0)


@architecture(
    "field/n05_unique_values",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=19)),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=64, sample=9),
        ),
    ),
)
def n05_unique_values() -> nn.Module:
    """The number of distinct tokens decides the result."""
    return Net()


JUDGE = {"length": [1, 3, 9, 30]}


def extra(draw):
    same = draw()
    same["ids"][:] = 4
    return [same]
