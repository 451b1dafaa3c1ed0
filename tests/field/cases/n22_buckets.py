"""The smallest bucket that fits."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "lengths are padded to the next of a list of buckets"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        n = x.shape[1]
        bucket = next((size for size in (16, 32, 128) if size >= n), 512)
        y = F.pad(self.a(x), (0, 0, 0, bucket - n))
        return self.b(y.mean(1))


@architecture(
    "field/n22_buckets",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n22_buckets() -> nn.Module:
    """The smallest bucket that fits."""
    return Net()


JUDGE = {"length": [1, 12, 16, 17, 32, 33, 128, 129, 300]}
