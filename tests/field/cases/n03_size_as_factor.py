"""A Python number made of a size scales the result."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "math.sqrt of the length is kept as a constant by a trace"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        return self.b(self.a(x).tanh()).sum(1) / math.sqrt(x.shape[1])


@architecture(
    "field/n03_size_as_factor",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n03_size_as_factor() -> nn.Module:
    """A Python number made of a size scales the result."""
    return Net()


JUDGE = {"length": [1, 2, 12, 50]}
