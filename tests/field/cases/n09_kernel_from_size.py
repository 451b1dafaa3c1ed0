"""A pooling kernel is a quarter of the size."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "the kernel of a pooling layer is made of the size"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Linear(6, 4)

    def forward(self, x):
        y = F.avg_pool2d(self.a(x), (x.shape[2] // 4, x.shape[3] // 4))
        return self.b(y.amax((2, 3)))


@architecture(
    "field/n09_kernel_from_size",
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
def n09_kernel_from_size() -> nn.Module:
    """A pooling kernel is a quarter of the size."""
    return Net()


JUDGE = {"height": [8, 31, 32, 64, 100], "width": [8, 32, 64]}
