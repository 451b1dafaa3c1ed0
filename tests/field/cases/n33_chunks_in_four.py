"""A sequence is cut into at most four chunks."""

import torch
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Signature, architecture

CASE = {"report": "our own", "symptom": "chunk(4) gives three parts of five rows and two of two"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 8)
        self.weights = nn.Parameter(torch.tensor([1.0, -0.7, 0.4, 2.0]))

    def forward(self, x):
        chunks = self.a(x).chunk(4, dim=1)
        return sum(w * c.tanh().mean(1) for w, c in zip(self.weights, chunks))


@architecture(
    "field/n33_chunks_in_four",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "n", 6)),),
        axes=(Axis(name="batch"), Axis(name="n", maximum=200, sample=16)),
    ),
)
def n33_chunks_in_four() -> nn.Module:
    """A sequence is cut into at most four chunks."""
    return Net()


JUDGE = {"n": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 33, 100]}
