"""Three ways by two thresholds."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "short, middle and long inputs differ"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        n = x.shape[1]
        y = self.a(x)
        if n < 20:
            y = y.relu()
        elif n < 100:
            y = y.tanh()
        else:
            y = y.sigmoid()
        return self.b(y).mean(1)


@architecture(
    "field/n28_two_thresholds",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n28_two_thresholds() -> nn.Module:
    """Three ways by two thresholds."""
    return Net()


JUDGE = {"length": [1, 12, 19, 20, 99, 100, 300]}
