"""Sides that differ by twenty or more are cropped."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "sides that differ by twenty or more are cropped"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        h = self.a(x)
        if abs(x.shape[2] - x.shape[3]) >= 20:
            side = min(x.shape[2:])
            h = h[:, :, :side, :side]
        return self.b(h)


@architecture(
    "field/n79_unlike_sides",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=8, maximum=96, sample=24),
            Axis(name="width", minimum=8, maximum=96, sample=20),
        ),
    ),
)
def n79_unlike_sides() -> nn.Module:
    """Sides that differ by twenty or more are cropped."""
    return Net()


JUDGE = {"height": [8, 24, 39, 40, 41, 60], "width": [8, 20, 43, 44, 60]}
