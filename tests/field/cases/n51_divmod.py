"""Groups of five, and what remains over."""

from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "divmod(n, 5) and a branch on its remainder"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        groups, rest = divmod(h.shape[1], 5)
        out = h[:, : groups * 5].reshape(h.shape[0], groups, 5, 12).amax(2).sum(1)
        if rest:
            out = out + h[:, groups * 5 :].amin(1)
        return self.b(out)


@architecture(
    "field/n51_divmod",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n51_divmod() -> nn.Module:
    """Groups of five, and what remains over."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
