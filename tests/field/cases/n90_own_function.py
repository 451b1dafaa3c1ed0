"""An autograd function of its own that asks the length."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "an autograd function of its own that asks the length"}


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone() if x.shape[1] <= 32 else x[:, ::2].repeat_interleave(2, 1)[:, : x.shape[1]]

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        return self.b(Halved.apply(self.a(x)))


@architecture(
    "field/n90_own_function",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n90_own_function() -> nn.Module:
    """An autograd function of its own that asks the length."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
