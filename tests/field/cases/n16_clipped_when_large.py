"""Large inputs are rescaled."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "a branch on the greatest value"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        if x.abs().max() > 6:
            x = x / 4
        return self.b(self.a(x)).mean(1)


@architecture(
    "field/n16_clipped_when_large",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n16_clipped_when_large() -> nn.Module:
    """Large inputs are rescaled."""
    return Net()


JUDGE = {"length": [1, 12]}


def extra(draw):
    large = draw()
    large["x"][0, 0, 0] = 40.0
    return [large]
