"""A band matrix whose width follows the size."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "tril with a diagonal made of the length"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        n = x.shape[1]
        band = torch.ones(n, n, dtype=x.dtype).tril(n // 4).triu(-(n // 4))
        return self.b(band @ self.a(x) / n)


@architecture(
    "field/n25_diagonal_band",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n25_diagonal_band() -> nn.Module:
    """A band matrix whose width follows the size."""
    return Net()


JUDGE = {"length": [1, 3, 4, 8, 12, 40]}
