"""Scales by length in a dictionary."""

from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "a size looked up in a Python dictionary"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        scale = {16: 2.0, 20: 0.5, 64: 3.0}.get(x.shape[1], 1.0)
        return self.b(self.a(x).relu() * scale)


@architecture(
    "field/n52_size_as_key",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n52_size_as_key() -> nn.Module:
    """Scales by length in a dictionary."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
