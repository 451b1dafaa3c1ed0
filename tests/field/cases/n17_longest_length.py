"""The longest of the lengths cuts the batch."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "int(lengths.max()) is kept by a trace"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x, lengths):
        y = self.a(x)[:, : int(lengths.max())]
        return self.b(y).sum(1)


@architecture(
    "field/n17_longest_length",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", 16, 8)),
            InputSpec(name="lengths", dtype="int64", shape=("batch",), distribution=Integers(low=1, high=16)),
        ),
        axes=(Axis(name="batch"),),
    ),
)
def n17_longest_length() -> nn.Module:
    """The longest of the lengths cuts the batch."""
    return Net()


JUDGE = {"batch": [1, 2, 5]}


def extra(draw):
    short = draw()
    short["lengths"][:] = 3
    return [short]
