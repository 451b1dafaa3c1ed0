"""The length is padded to a multiple of eight."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "padding is computed from the length"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        pad = (8 - x.shape[1] % 8) % 8
        y = F.pad(self.a(x), (0, 0, 0, pad))
        return self.b(y.view(y.shape[0], -1, 8, 8).mean(2).tanh()).sum(1)


@architecture(
    "field/n13_padded_to_eight",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n13_padded_to_eight() -> nn.Module:
    """The length is padded to a multiple of eight."""
    return Net()


JUDGE = {"length": [1, 7, 8, 9, 12, 16, 61]}
