"""What is left after whole blocks may be nothing."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "what is left after whole blocks may be nothing"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        n = x.shape[1] // 16 * 16
        whole, rest = x[:, :n], x[:, n:]
        h = self.a(whole).unflatten(1, (-1, 16)).mean((1, 2)) if n else self.a(x).amax(1)
        return self.b(h), self.b(self.a(rest)).sum(1)


@architecture(
    "field/n98_empty_part",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n98_empty_part() -> nn.Module:
    """What is left after whole blocks may be nothing."""
    return Net()


JUDGE = {"length": [1, 15, 16, 17, 20, 31, 32, 33, 160]}
