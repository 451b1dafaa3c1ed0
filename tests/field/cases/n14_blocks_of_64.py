"""Blocks of 64 are worked on one after the other."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "a loop over blocks has as many turns as the sample"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        total = torch.zeros_like(x[:, 0])
        for start in range(0, x.shape[1], 64):
            total = total + self.a(x[:, start : start + 64]).softmax(1)[:, 0]
        return self.b(total)


@architecture(
    "field/n14_blocks_of_64",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n14_blocks_of_64() -> nn.Module:
    """Blocks of 64 are worked on one after the other."""
    return Net()


JUDGE = {"length": [1, 12, 64, 65, 128, 200]}
