"""A table of positions that is continued by computing."""

import torch
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "positions beyond the table are computed and appended"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)
        self.table = nn.Parameter(torch.randn(32, 8))
        self.register_buffer("steps", torch.rand(8))

    def forward(self, x):
        n = x.shape[1]
        table = self.table
        if n > table.shape[0]:
            more = torch.arange(table.shape[0], n, dtype=x.dtype)[:, None] * self.steps
            table = torch.cat([table, more.sin()])
        return self.b(self.a(x + table[:n]).relu())


@architecture(
    "field/n56_table_extended",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n56_table_extended() -> nn.Module:
    """A table of positions that is continued by computing."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
