"""One length alone, far from the sample, takes another way."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "one length alone, far from the sample, takes another way"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x)
        return self.b(h.tanh() if x.shape[1] == 137 else h)


@architecture(
    "field/n77_one_far_length",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n77_one_far_length() -> nn.Module:
    """One length alone, far from the sample, takes another way."""
    return Net()


JUDGE = {"length": [1, 20, 136, 137, 138]}
