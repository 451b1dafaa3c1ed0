"""A module that draws random numbers in eval mode."""

import torch
from recast_plugins import InputSpec, OutputSpec, Signature, architecture
from torch import Tensor, nn


class Stochastic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(8, 4)
        self.spread = nn.Linear(8, 4)

    def forward(self, features: Tensor) -> Tensor:
        mean: Tensor = self.mean(features)
        return mean + torch.randn_like(mean) * torch.exp(self.spread(features))


@architecture(
    "sample/stochastic",
    family="stochastic",
    signature=Signature(
        inputs=(InputSpec(name="features", shape=("batch", 8)),),
        outputs=(OutputSpec(name="draws", dtype="float32", shape=("batch", 4)),),
    ),
)
def stochastic() -> nn.Module:
    """Draws from a normal distribution whose parameters it computes."""
    return Stochastic()
