"""Two inputs that are the same take another way."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "two inputs that are the same take another way"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, q, k):
        h = self.a(q)
        if torch.equal(q, k):
            return self.b(h)
        return self.b(h + self.a(k))


@architecture(
    "field/n72_equal_inputs",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="q", shape=("batch", "length", 8)), InputSpec(name="k", shape=("batch", "length", 8))),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n72_equal_inputs() -> nn.Module:
    """Two inputs that are the same take another way."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}


def extra(draw):
    values = draw()
    return [{"q": values["q"], "k": values["q"].clone()}]
