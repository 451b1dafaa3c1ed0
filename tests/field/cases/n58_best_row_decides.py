"""The best row, and another way where it is the first."""

import torch
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "argmax as an index, and a branch on it"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        best = h.sum(-1).argmax(1)
        row = h[torch.arange(h.shape[0]), best]
        if best[0] == 0:
            row = row * 0.5
        return self.b(row)


@architecture(
    "field/n58_best_row_decides",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n58_best_row_decides() -> nn.Module:
    """The best row, and another way where it is the first."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
