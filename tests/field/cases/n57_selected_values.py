"""The mean of the values above a threshold, or NaN of none."""

import torch
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "masked_select, and nothing to select"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        chosen = torch.masked_select(h, h > 1.0)
        return self.b(h) * chosen.mean(), chosen


@architecture(
    "field/n57_selected_values",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n57_selected_values() -> nn.Module:
    """The mean of the values above a threshold, or NaN of none."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}


def extra(draw):
    return [{"x": draw()["x"] * 0.0}, {"x": draw()["x"] * 9.0}]
