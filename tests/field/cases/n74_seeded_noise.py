"""Noise of a seed that the forward sets: eager repeats it, an operator does not."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "noise of a seed that the forward sets: eager repeats it, an operator does not"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        torch.manual_seed(7)
        h = self.a(x)
        return self.b(h + 0.3 * torch.randn_like(h))


@architecture(
    "field/n74_seeded_noise",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n74_seeded_noise() -> nn.Module:
    """Noise of a seed that the forward sets: eager repeats it, an operator does not."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
