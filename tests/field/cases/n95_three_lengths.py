"""Three axes of which one is the sum of the others."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "three axes of which one is the sum of the others"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x, y, z):
        both = torch.cat([x, y], 1)
        h = self.a(both).mean(1) + self.a(z).mean(1)
        if z.shape[1] == both.shape[1]:
            h = h + self.a(both * z).mean(1)
        return self.b(h)


@architecture(
    "field/n95_three_lengths",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", "first", 8)),
            InputSpec(name="y", shape=("batch", "second", 8)),
            InputSpec(name="z", shape=("batch", "third", 8)),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="first", maximum=40, sample=5),
            Axis(name="second", maximum=40, sample=7),
            Axis(name="third", maximum=60, sample=9),
        ),
    ),
)
def n95_three_lengths() -> nn.Module:
    """Three axes of which one is the sum of the others."""
    return Net()


JUDGE = {"first": [1, 2, 5], "second": [4, 7], "third": [6, 8, 9, 12]}
