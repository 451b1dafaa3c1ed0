"""Wide images are turned."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "an image wider than twice its height is transposed"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Linear(6, 4)

    def forward(self, x):
        if x.shape[3] > 2 * x.shape[2]:
            x = x.transpose(2, 3)
        y = self.a(x).relu()
        return self.b((y * torch.linspace(0, 1, y.shape[2]).view(1, 1, -1, 1)).mean((2, 3)))


@architecture(
    "field/n31_aspect_ratio",
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
def n31_aspect_ratio() -> nn.Module:
    """Wide images are turned."""
    return Net()


JUDGE = {"height": [8, 32, 64], "width": [8, 32, 65, 128, 200]}
