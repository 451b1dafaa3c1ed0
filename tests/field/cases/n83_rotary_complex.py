"""Rotary positions by complex numbers."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "rotary positions by complex numbers"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = torch.view_as_complex(self.a(x).unflatten(-1, (6, 2)).contiguous())
        angles = torch.outer(torch.arange(x.shape[1]), 10.0 ** -torch.arange(6.0))
        return self.b(torch.view_as_real(h * torch.polar(torch.ones_like(angles), angles)).flatten(2))


@architecture(
    "field/n83_rotary_complex",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n83_rotary_complex() -> nn.Module:
    """Rotary positions by complex numbers."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
