"""The whole number of elements decides."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "numel above 5000 takes the way for large images"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Linear(6, 4)

    def forward(self, x):
        y = self.a(x)
        if x[0, 0].numel() > 2000:
            y = F.avg_pool2d(y, 2)
        return self.b(y.relu().amax((2, 3)))


@architecture(
    "field/n21_many_elements",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=8, maximum=256, sample=32),
            Axis(name="width", minimum=8, maximum=256, sample=32),
        ),
    ),
)
def n21_many_elements() -> nn.Module:
    """The whole number of elements decides."""
    return Net()


JUDGE = {"height": [8, 32, 44, 45, 46, 200], "width": [8, 32, 45, 64]}
