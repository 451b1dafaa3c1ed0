"""A result of tuples, named tuples, lists and None, one in the other."""

from typing import NamedTuple

import torch
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Signature, architecture

CASE = {"report": "our own", "symptom": "None inside a named tuple inside a dictionary; one tensor given twice"}


class Level(NamedTuple):
    logits: torch.Tensor
    mask: torch.Tensor | None
    steps: list


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 8)
        self.b = nn.Linear(8, 3)

    def forward(self, x):
        hidden = self.a(x).relu()
        levels = (Level(self.b(hidden), None, [hidden, hidden.mean(1)]), Level(self.b(hidden[:, -1]), x > 0, []))
        return {"last": hidden, "levels": levels, "count": (hidden > 0.1).sum(-1), "loss": None}


@architecture(
    "field/n44_nested_results",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 6)),),
        axes=(Axis(name="batch"), Axis(name="length", maximum=64, sample=7)),
    ),
)
def n44_nested_results() -> nn.Module:
    """A result of tuples, named tuples, lists and None, one in the other."""
    return Net()


JUDGE = {"length": [1, 2, 7, 30]}
