"""A number from numpy of the length is kept by a trace."""

import numpy as np
import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "a number from numpy of the length is kept by a trace"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        return self.b(self.a(x)) / float(np.hanning(x.shape[1] + 2).sum())


@architecture(
    "field/n70_numpy_window",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n70_numpy_window() -> nn.Module:
    """A number from numpy of the length is kept by a trace."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
