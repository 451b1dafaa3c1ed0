"""Hooks change what goes in and what comes out."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "hooks change what goes in and what comes out"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)
        self.a.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))
        self.b.register_forward_hook(lambda _, inputs, output: output + inputs[0].shape[1])

    def forward(self, x):
        return self.b(self.a(x).relu())


@architecture(
    "field/n89_hooked",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n89_hooked() -> nn.Module:
    """Hooks change what goes in and what comes out."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
