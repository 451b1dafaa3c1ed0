"""One image is resized to the size of another."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "interpolate takes its size from another input"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x, guide):
        y = F.interpolate(self.a(x), size=guide.shape[-2:], mode="bilinear", align_corners=False)
        return (y * guide).mean(1)


@architecture(
    "field/n18_resized_to_the_other",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", 3, "height", "width")),
            InputSpec(name="guide", shape=("batch", 4, "tall", "wide")),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=4, maximum=64, sample=16),
            Axis(name="width", minimum=4, maximum=64, sample=20),
            Axis(name="tall", minimum=4, maximum=64, sample=24),
            Axis(name="wide", minimum=4, maximum=64, sample=28),
        ),
    ),
)
def n18_resized_to_the_other() -> nn.Module:
    """One image is resized to the size of another."""
    return Net()


JUDGE = {"height": [4, 16, 40], "tall": [4, 24, 50], "wide": [5, 28]}
