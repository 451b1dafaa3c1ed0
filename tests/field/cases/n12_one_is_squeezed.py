"""A batch of one takes another way."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "a batch of one is normalised otherwise"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        y = self.a(x)
        if x.shape[0] == 1:
            y = y * 3
        return self.b(y).mean(1)


@architecture(
    "field/n12_one_is_squeezed",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n12_one_is_squeezed() -> nn.Module:
    """A batch of one takes another way."""
    return Net()


JUDGE = {"batch": [1, 2, 3, 8], "length": [1, 12]}
