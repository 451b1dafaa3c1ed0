"""As many rounds as the length has bits."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "as many rounds as the length has bits"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        for step in range(int(x.shape[1]).bit_length()):
            h = h + torch.roll(h, 1 << step, 1) * 0.5
        return self.b(h)


@architecture(
    "field/n68_bit_length",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n68_bit_length() -> nn.Module:
    """As many rounds as the length has bits."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
