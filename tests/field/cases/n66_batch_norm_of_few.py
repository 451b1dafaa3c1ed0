"""Norms of a batch of one."""

import torch
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "a branch on a batch of one inside of a layer"}


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(12) + 0.5)

    def forward(self, h):
        if h.shape[0] * h.shape[1] <= 2:
            return h * self.scale
        return (h - h.mean((0, 1))) / (h.var((0, 1), unbiased=True) + 1e-5).sqrt() * self.scale


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.norm = Norm()
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        return self.b(self.norm(self.a(x)).relu())


@architecture(
    "field/n66_batch_norm_of_few",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n66_batch_norm_of_few() -> nn.Module:
    """Norms of a batch of one."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
