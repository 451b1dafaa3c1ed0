"""Each of a batch by itself."""

import torch
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "iteration over a tensor, whose number a trace keeps"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        rows = []
        for row in x:
            keep = self.a(row).sum(-1).argsort(descending=True)[:3]
            rows.append(self.b(self.a(row)[keep]).sum(0))
        return torch.stack(rows)


@architecture(
    "field/n61_each_of_the_batch",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n61_each_of_the_batch() -> nn.Module:
    """Each of a batch by itself."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
