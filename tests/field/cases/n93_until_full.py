"""Rows are doubled until there are forty."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "rows are doubled until there are forty"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        while len(h) < 40:
            h = torch.cat([h, h * 0.5])
        return self.b(h[:40])


@architecture(
    "field/n93_until_full",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("rows", 8)),), axes=(Axis(name="rows", maximum=200, sample=12),)
    ),
)
def n93_until_full() -> nn.Module:
    """Rows are doubled until there are forty."""
    return Net()


JUDGE = {"rows": [1, 2, 5, 10, 11, 12, 20, 39, 40, 41, 150]}
