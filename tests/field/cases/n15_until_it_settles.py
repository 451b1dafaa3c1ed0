"""An iteration goes on until the data settles."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "a loop ends by a value"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        y = x.mean(1)
        for _ in range(20):
            step = self.a(y).tanh() * 0.5
            if float((step - y).abs().max()) < 0.3:
                break
            y = step
        return self.b(y)


@architecture(
    "field/n15_until_it_settles",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n15_until_it_settles() -> nn.Module:
    """An iteration goes on until the data settles."""
    return Net()


JUDGE = {"length": [1, 12]}


def extra(draw):
    near = draw()
    near["x"] *= 0.01
    far = draw()
    far["x"] *= 30
    return [near, far]
