"""A loop over the rows that a mask selects."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "a loop over the rows that a mask selects"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        total = torch.zeros(12)
        for row in h[h[..., 0] > 0]:
            total = total * 0.5 + row
        return self.b(total)


@architecture(
    "field/n73_rows_of_a_mask",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n73_rows_of_a_mask() -> nn.Module:
    """A loop over the rows that a mask selects."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}


def extra(draw):
    return [{"x": draw()["x"] * 0.0}, {"x": draw()["x"] * -1.0}]
