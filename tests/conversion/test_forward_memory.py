"""What a model's forward would hold is known before it is run, and refused where it is more than may be used."""

import re

import pytest
import torch
from recast_plugins import InputSpec, Signature
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.conversion import forward_memory
from app.conversion.forward_memory import held_by_forward, refuse_beyond_limit
from app.domain.errors import MemoryEstimateExceeded
from app.targets.onnx.spec import OnnxOptions
from app.targets.request import ExportRequest

SIGNATURE = Signature(inputs=(InputSpec(name="features", shape=("batch", 8)),))
ROWS = 1 << 10
LAYER = ROWS * 8 * 4
"""Bytes of what a layer of the nets below gives."""


class Kept(nn.Module):
    """Holds what its layers gave."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(5))

    def forward(self, features: Tensor) -> Tensor:
        given = [features]
        for layer in self.layers:
            given.append(layer(given[-1]))
        return torch.stack(given).sum(0)


class Asking(Kept):
    """Asks for a value after its first layers."""

    def forward(self, features: Tensor) -> Tensor:
        given = [layer(features) for layer in self.layers]
        return given[0] if given[1].sum() > 0 else given[2]


def inputs() -> dict[str, Tensor]:
    return {"features": torch.zeros(ROWS, 8)}


def test_what_is_let_go_of_does_not_count() -> None:
    passing = nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)))
    assert 2 * LAYER <= held_by_forward(EagerModel(passing, SIGNATURE), inputs()) < 3 * LAYER
    assert held_by_forward(EagerModel(Kept(), SIGNATURE), inputs()) >= 5 * LAYER


def test_as_far_as_it_can_be_followed() -> None:
    assert 5 * LAYER <= held_by_forward(EagerModel(Asking(), SIGNATURE), inputs()) < 6 * LAYER


def test_attention_counts_its_scores() -> None:
    class Attending(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(features, features, features)

    assert held_by_forward(EagerModel(Attending(), SIGNATURE), inputs()) >= ROWS * ROWS * 4


def test_more_than_may_be_used_is_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    request = ExportRequest(Kept(), SIGNATURE, OnnxOptions(), inputs())
    monkeypatch.setattr(forward_memory, "LARGE", 1)
    monkeypatch.setattr(forward_memory, "memory_left", lambda: LAYER)
    with pytest.raises(MemoryEstimateExceeded, match=re.escape("features (1024, 8) holds")):
        refuse_beyond_limit(request)
    for left in (100 * LAYER, None):
        monkeypatch.setattr(forward_memory, "memory_left", lambda left=left: left)
        refuse_beyond_limit(request)
