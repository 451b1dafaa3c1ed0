"""What a module can keep of its weights outside of its state dict counts, wherever it hides it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn

from app.targets.templating.structure import structure_digest
from tests.targets.capturing import train_a_little


class Slotted:
    """Keeps a number in a slot."""

    __slots__ = ("limit", "never_set")

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def clamp(self, value: Tensor) -> Tensor:
        return value.clamp(max=self.limit)


class Clamped(nn.Module):
    """A layer; ``keep`` makes of a number what the module holds beside its weights."""

    def __init__(self, keep: Callable[[float], Any], limit: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 2)
        self.kept = keep(limit)
        self.eval()


def closure(limit: float) -> Callable[[Tensor], Tensor]:
    return lambda value: value.clamp(max=limit)


def default(limit: float) -> Callable[[Tensor], Tensor]:
    def clamp(value: Tensor, limit: float = limit) -> Tensor:
        return value.clamp(max=limit)

    return clamp


def keyword_default(limit: float) -> Callable[[Tensor], Tensor]:
    def clamp(value: Tensor, *, limit: float = limit) -> Tensor:
        return value.clamp(max=limit)

    return clamp


def attribute(limit: float) -> Callable[[Tensor], Tensor]:
    def clamp(value: Tensor) -> Tensor:
        return value.clamp(max=clamp.limit)  # type: ignore[attr-defined]

    clamp.limit = limit  # type: ignore[attr-defined]
    return clamp


def other_code(limit: float) -> Callable[[Tensor], Tensor]:
    made: dict[str, Callable[[Tensor], Tensor]] = {}
    exec(f"def clamp(value): return value.clamp(max={limit})", {"__name__": __name__}, made)
    return made["clamp"]


KEEPERS: list[Callable[[float], Any]] = [
    lambda limit: np.array([limit], np.float32),
    lambda limit: np.float32(limit),
    lambda limit: np.array(["name", limit], object),
    lambda limit: [np.full((2, 2), limit)],
    closure,
    default,
    keyword_default,
    attribute,
    other_code,
    Slotted,
    lambda limit: Slotted(limit).clamp,
]


@pytest.mark.parametrize("keep", KEEPERS)
def test_a_number_of_the_weights_counts_wherever_it_is_kept(keep: Callable[[float], Any]) -> None:
    first = structure_digest(Clamped(keep, 1.5))
    assert structure_digest(train_a_little(Clamped(keep, 1.5), 1)) == first
    assert structure_digest(Clamped(keep, 1.25)) != first


class Holding(nn.Module):
    """Functions of a library, methods of its own, and a variable that is never set."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.act, self.own = nn.functional.gelu, self.layer.forward
        self.late = lambda: later
        if self.layer is None:
            later = 1
        self.eval()


def bert() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return transformers.BertModel(transformers.BertConfig(vocab_size=100, **sizes)).eval()


ARCHITECTURES: list[Callable[[], nn.Module]] = [
    Holding,
    lambda: torchvision.models.resnet18().eval(),
    lambda: timm.create_model("vit_tiny_patch16_224", img_size=64).eval(),
    bert,
]


@pytest.mark.parametrize("build", ARCHITECTURES)
def test_a_second_load_of_an_architecture_has_the_same_structure(build: Callable[[], nn.Module]) -> None:
    first, second = build(), build()
    before = structure_digest(first)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(1.01)
    assert structure_digest(second) == before
