"""Even and odd lengths part."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "an odd length loses its last element"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        y = self.a(x)
        if y.shape[1] % 2 == 1 and y.shape[1] > 1:
            y = y[:, :-1]
        return self.b(y.tanh().cumsum(1))


@architecture(
    "field/n11_even_and_odd",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n11_even_and_odd() -> nn.Module:
    """Even and odd lengths part."""
    return Net()


JUDGE = {"length": [1, 2, 3, 12, 13, 51]}
