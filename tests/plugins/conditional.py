"""A branch on data that exporters can keep: both sides are in the graph."""

import torch
from recast_plugins import InputSpec, OutputSpec, Signature, architecture
from torch import Tensor, nn


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positive = nn.Linear(8, 4)
        self.negative = nn.Linear(8, 4)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = torch.cond(features.sum() > 0, self._take_positive, self._take_negative, (features,))
        return scores

    def _take_positive(self, features: Tensor) -> Tensor:
        scores: Tensor = self.positive(features)
        return scores

    def _take_negative(self, features: Tensor) -> Tensor:
        scores: Tensor = self.negative(features)
        return scores


@architecture(
    "sample/conditional",
    family="control_flow",
    signature=Signature(
        inputs=(InputSpec(name="features", shape=("batch", 8)),),
        outputs=(OutputSpec(name="scores", dtype="float32", shape=("batch", 4)),),
    ),
)
def conditional() -> nn.Module:
    """Chooses one of two heads by torch.cond."""
    return Conditional()
