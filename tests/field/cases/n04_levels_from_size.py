"""The number of pyramid levels follows the size."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "a pyramid has log2(size) levels, a trace keeps those of its sample"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Linear(6, 4)

    def forward(self, x):
        y = self.a(x)
        total = y.mean((2, 3))
        for _ in range(int(math.log2(min(x.shape[2], x.shape[3]))) - 2):
            y = F.avg_pool2d(y.relu(), 2)
            total = total + y.mean((2, 3))
        return self.b(total)


@architecture(
    "field/n04_levels_from_size",
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
def n04_levels_from_size() -> nn.Module:
    """The number of pyramid levels follows the size."""
    return Net()


JUDGE = {"height": [8, 16, 31, 32, 64, 128], "width": [8, 32, 64]}
