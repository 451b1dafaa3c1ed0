"""A net whose output does not depend on its input, as a zero-initialised head gives."""

import torch
from recast_plugins import InputSpec, OutputSpec, Signature, architecture
from torch import Tensor, nn


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.bias = nn.Parameter(torch.tensor([0.5, -1.0, 2.0, 0.0]))

    def forward(self, features: Tensor) -> Tensor:
        return torch.zeros_like(self.body(features))[:, :4] + self.bias


@architecture(
    "sample/constant",
    family="constant",
    signature=Signature(
        inputs=(InputSpec(name="features", shape=("batch", 8)),),
        outputs=(OutputSpec(name="scores", dtype="float32", shape=("batch", 4)),),
    ),
)
def constant() -> nn.Module:
    """Answers the same whatever it is asked."""
    return Constant()
