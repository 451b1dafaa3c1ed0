"""Ids less one: the first reads the last row."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Integers, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "ids less one: the first reads the last row"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(31, 8))
        self.b = nn.Linear(8, 4)

    def forward(self, ids):
        counts = F.one_hot(ids, 31).sum(1).float()
        return self.b(self.table[ids - 1]), counts @ self.table


@architecture(
    "field/n92_table_from_behind",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=30)),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n92_table_from_behind() -> nn.Module:
    """Ids less one: the first reads the last row."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}


def extra(draw):
    ids = draw()["ids"]
    return [{"ids": torch.zeros_like(ids)}, {"ids": torch.full_like(ids, 30)}]
