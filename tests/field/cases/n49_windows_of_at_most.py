"""Overlapping windows, shorter where the input is."""

from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "unfold with a window of min(8, n)"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        windows = h.unfold(1, min(8, h.size(1)), 4)
        return self.b(windows.amax(-1))


@architecture(
    "field/n49_windows_of_at_most",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n49_windows_of_at_most() -> nn.Module:
    """Overlapping windows, shorter where the input is."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
