"""Ranks, the k-th value and running maxima of equal numbers."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "ranks, the k-th value and running maxima of equal numbers"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x).round()
        order = h[..., 0].argsort(dim=1, stable=True)
        middle = h.kthvalue((x.shape[1] + 1) // 2, dim=1).values
        return self.b(h.gather(1, order[..., None].expand_as(h))), middle, h.cummax(1).values


@architecture(
    "field/n94_ranked",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n94_ranked() -> nn.Module:
    """Ranks, the k-th value and running maxima of equal numbers."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
