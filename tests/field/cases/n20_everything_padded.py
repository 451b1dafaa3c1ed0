"""A row of padding alone."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "softmax over nothing where a mask has no place"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x, mask):
        scores = self.a(x).sum(-1).masked_fill(mask == 0, float("-inf"))
        weights = scores.softmax(-1)
        return self.b((torch.nan_to_num(weights).unsqueeze(-1) * x).sum(1))


@architecture(
    "field/n20_everything_padded",
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
def n20_everything_padded() -> nn.Module:
    """A row of padding alone."""
    return Net()


JUDGE = {"length": [1, 12, 30]}


def extra(draw):
    padded = draw()
    padded["mask"][0] = 0
    return [padded]
