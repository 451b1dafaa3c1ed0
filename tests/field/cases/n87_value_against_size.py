"""A value is compared with half the length."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "a value is compared with half the length"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        if int((x[0, :, 0] > 0).sum()) > x.shape[1] // 2:
            h = h.flip(1)
        return self.b(h)


@architecture(
    "field/n87_value_against_size",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n87_value_against_size() -> nn.Module:
    """A value is compared with half the length."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}


def extra(draw):
    x = draw()["x"]
    return [{"x": x.abs()}, {"x": -x.abs()}]
