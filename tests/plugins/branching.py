"""A module whose control flow depends on the values of its input."""

import torch
from recast_plugins import Axis, InputSpec, OutputSpec, Signature, architecture
from torch import Tensor, nn


class Branching(nn.Module):
    """Doubles the evidence until it is strong enough, then answers with one of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.positive = nn.Linear(16, 4)
        self.negative = nn.Linear(16, 4)

    def forward(self, features: Tensor) -> Tensor:
        evidence = torch.tanh(self.stem(features))
        steps = 0
        while bool(evidence.abs().sum() < 20.0) and steps < 8:
            evidence = evidence * 2.0
            steps += 1
        if bool(features.sum() > 0):
            return self.positive(evidence)
        return self.negative(evidence)


@architecture(
    "sample/branching",
    family="control_flow",
    signature=Signature(
        inputs=(InputSpec(name="features", shape=("batch", 8)),),
        axes=(Axis(name="batch"),),
        outputs=(OutputSpec(name="scores", dtype="float32", shape=("batch", 4)),),
    ),
)
def branching() -> nn.Module:
    """Chooses its head, and how long it loops, by the values of its input."""
    return Branching()
