"""The nearest of a list of lengths, by bisect."""

import bisect

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "the nearest of a list of lengths, by bisect"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        row = bisect.bisect_left([16, 32, 64, 128], x.shape[1])
        return self.b(self.a(x) * (1.0 + row))


@architecture(
    "field/n69_bisected",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n69_bisected() -> nn.Module:
    """The nearest of a list of lengths, by bisect."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
