"""A function that remembers tables by the length, for all modules."""

import functools

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "a function that remembers tables by the length, for all modules"}


@functools.lru_cache(maxsize=None)
def table(length):
    return torch.arange(12.0).sin() * torch.arange(float(length))[:, None].cos()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        return self.b(self.a(x) + table(x.shape[1]))


@architecture(
    "field/n71_cached_function",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n71_cached_function() -> nn.Module:
    """A function that remembers tables by the length, for all modules."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
