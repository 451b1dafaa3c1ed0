"""A vector is halved until it is short."""

from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "while on a norm of the data"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x).mean(1)
        turns = 0
        while float(h.norm()) > 0.7 and turns < 9:
            h = h / 2
            turns += 1
        return self.b(h + turns)


@architecture(
    "field/n59_halved_until_small",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n59_halved_until_small() -> nn.Module:
    """A vector is halved until it is short."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}


def extra(draw):
    return [{"x": draw()["x"] * scale} for scale in (1e-3, 3.0, 30.0)]
