"""A length that is a power of two takes a fast way."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "a length that is a power of two takes a fast way"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        n = x.shape[1]
        if n & (n - 1) == 0:
            h = h.cumsum(1)
        return self.b(h)


@architecture(
    "field/n67_power_of_two",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n67_power_of_two() -> nn.Module:
    """A length that is a power of two takes a fast way."""
    return Net()


JUDGE = {"length": [1, 2, 3, 8, 16, 20, 31, 32, 33, 64, 100, 128]}
