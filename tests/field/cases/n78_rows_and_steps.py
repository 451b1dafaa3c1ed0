"""Batch times length decides."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "batch times length decides"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        if x.shape[0] * x.shape[1] > 500:
            h = torch.cat([part.sigmoid() for part in h.split(8, 1)], 1)
        return self.b(h)


@architecture(
    "field/n78_rows_and_steps",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n78_rows_and_steps() -> nn.Module:
    """Batch times length decides."""
    return Net()


JUDGE = {"batch": [1, 2, 5, 11], "length": [1, 19, 20, 60, 150]}
