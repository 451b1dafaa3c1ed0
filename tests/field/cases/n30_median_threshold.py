"""Values above the median of the batch are kept."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "sort and gather by data"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        y = self.a(x)
        threshold = y.median(1, keepdim=True).values
        return self.b(torch.where(y > threshold, y, torch.zeros_like(y))).sum(1)


@architecture(
    "field/n30_median_threshold",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n30_median_threshold() -> nn.Module:
    """Values above the median of the batch are kept."""
    return Net()


JUDGE = {"length": [1, 2, 12, 41]}
