"""A volume whose three sides are alike is also read turned."""

import torch
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Signature, architecture

CASE = {"report": "our own", "symptom": "depth == height == width takes another way"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv3d(1, 4, 3, padding=1)
        self.b = nn.Linear(4, 3)

    def forward(self, x):
        y = self.a(x)
        depth, height, width = x.shape[-3:]
        if depth == height and height == width:
            y = y + 0.5 * self.a(x.transpose(-1, -3))
        return self.b(y.tanh().amax((2, 3, 4)))


@architecture(
    "field/n37_cubes",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 1, "depth", "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="depth", minimum=2, maximum=16, sample=4),
            Axis(name="height", minimum=2, maximum=16, sample=5),
            Axis(name="width", minimum=2, maximum=16, sample=6),
        ),
    ),
)
def n37_cubes() -> nn.Module:
    """A volume whose three sides are alike is also read turned."""
    return Net()


JUDGE = {"depth": [2, 4, 7], "height": [2, 5], "width": [2, 6]}


def extra(draw):
    return [draw(batch=2, depth=n, height=n, width=n) for n in (4, 5, 6, 9)]
