"""Pairs are merged until one is left."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "a while loop over a size"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        y = self.a(x)
        while y.shape[1] > 1:
            if y.shape[1] % 2:
                y = torch.cat([y, y[:, -1:]], 1)
            y = (y[:, 0::2] * 0.7 + y[:, 1::2] * 0.3).tanh()
        return self.b(y[:, 0])


@architecture(
    "field/n23_halved_to_one",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n23_halved_to_one() -> nn.Module:
    """Pairs are merged until one is left."""
    return Net()


JUDGE = {"length": [1, 2, 3, 5, 12, 16, 17, 40]}
