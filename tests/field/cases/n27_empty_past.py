"""A cache that may be empty."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "past of length 0 is left out of the concatenation"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x, past):
        y = self.a(x)
        if past.shape[1] == 0:
            return self.b(y).cumsum(1)
        return self.b(torch.cat([past, y], 1)).cumsum(1)[:, past.shape[1] :]


@architecture(
    "field/n27_empty_past",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", "length", 8)),
            InputSpec(name="past", shape=("batch", "before", 8)),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
            Axis(name="before", minimum=0, maximum=64, sample=5),
        ),
    ),
)
def n27_empty_past() -> nn.Module:
    """A cache that may be empty."""
    return Net()


JUDGE = {"length": [1, 12], "before": [0, 1, 5, 20]}
