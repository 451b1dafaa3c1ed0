"""A branch on multiples of seven."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "a length divisible by 7 is rolled"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        y = self.a(x)
        if x.shape[1] % 7 == 0:
            y = y.roll(1, dims=1) * 2
        return self.b(y.tanh()).mean(1)


@architecture(
    "field/n01_multiple_of_seven",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n01_multiple_of_seven() -> nn.Module:
    """A branch on multiples of seven."""
    return Net()


JUDGE = {"length": [1, 6, 7, 12, 14, 70, 71]}
