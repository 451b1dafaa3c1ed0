"""Hann_window, linspace and eye of the length."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "hann_window, linspace and eye of the length"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        n = x.shape[1]
        h = self.a(x) * torch.hann_window(n)[:, None] + torch.linspace(0, 1, n)[:, None]
        return self.b(torch.eye(n) @ h)


@architecture(
    "field/n86_windowed",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n86_windowed() -> nn.Module:
    """Hann_window, linspace and eye of the length."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
