"""An exception of a size is caught."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "a view that does not fit is caught"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        y = self.a(x)
        try:
            y = y.view(y.shape[0], -1, 4, 8).amax(2)
        except RuntimeError:
            y = y.mean(1, keepdim=True)
        return self.b(y).sum(1)


@architecture(
    "field/n29_try_a_size",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n29_try_a_size() -> nn.Module:
    """An exception of a size is caught."""
    return Net()


JUDGE = {"length": [1, 3, 4, 12, 13, 40]}
