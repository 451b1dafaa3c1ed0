"""Another answer from the fourth call on."""

from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "another answer from the fourth call on"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 3)
        self.n = 0

    def forward(self, x):
        self.n += 1
        return self.a(x) + (0.5 if self.n > 3 else 0.0)


@architecture(
    "field/n100_counts_its_calls",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n100_counts_its_calls() -> nn.Module:
    """Another answer from the fourth call on."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 8, 16, 19, 20, 21, 33, 64, 65, 130]}
