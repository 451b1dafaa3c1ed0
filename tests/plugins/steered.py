"""A module whose graph is decided by the weights that are loaded: it must never be templated."""

from typing import Any

from recast_plugins import InputSpec, OutputSpec, Signature, architecture
from torch import Tensor, nn


class Steered(nn.Module):
    """Skips its gate when the loaded gate is closed: a Python decision, which an export freezes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.gate = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)
        self.gated = True
        self.register_load_state_dict_post_hook(self._decide)

    @staticmethod
    def _decide(module: Any, _incompatible: Any) -> None:
        module.gated = bool(module.gate.weight.abs().sum() > 0)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.linear(features)
        if self.gated:
            hidden = hidden * self.gate(features).sigmoid()
        scores: Tensor = self.head(hidden)
        return scores


@architecture(
    "sample/steered",
    family="steered",
    signature=Signature(
        inputs=(InputSpec(name="features", shape=("batch", 8)),),
        outputs=(OutputSpec(name="scores", dtype="float32", shape=("batch", 4)),),
    ),
)
def steered() -> nn.Module:
    """Leaves a layer out of its graph when that layer's loaded weights are zero."""
    return Steered()
