"""The structure digest covers everything of a module but the values of its state dict."""

import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from app.targets.templating.structure import structure_digest
from tests.targets.capturing import Attention, ConvNet, Recurrent, train_a_little

ROOT = Path(__file__).parents[3]


class Kind(Enum):
    mean = 1
    total = 2


class Settings:
    def __init__(self, width: int) -> None:
        self.width = width
        self.itself = self


class Configured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.number, self.flag, self.kind = 1.5, True, Kind.mean
        self.sizes = {"a": [1, 2], "b": (3,)}
        self.names = {"x", "y"}
        self.settings = Settings(3)
        self.function = partial(torch.clamp, min=0.0)
        self.plain = torch.arange(3.0)
        self.alias = [self.fc.weight]
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("constant", torch.ones(2), persistent=False)


@pytest.mark.parametrize("kind", [ConvNet, Attention, Recurrent, Configured])
def test_values_of_the_state_dict_do_not_count(kind: type[nn.Module]) -> None:
    assert structure_digest(train_a_little(kind(), 1)) == structure_digest(train_a_little(kind(), 2))


def retie(module: Configured) -> None:
    module.alias = [module.fc.bias]


def rebuild(module: Configured) -> None:
    module.fc = nn.utils.skip_init(nn.Bilinear, 2, 2, 2)  # type: ignore[assignment]


CHANGES: list[Callable[[Configured], object]] = [
    lambda module: setattr(module, "number", 1.25),
    lambda module: setattr(module, "flag", 1),
    lambda module: setattr(module, "kind", Kind.total),
    lambda module: module.sizes["a"].append(3),
    lambda module: module.names.add("z"),
    lambda module: setattr(module.settings, "width", 4),
    lambda module: setattr(module, "function", partial(torch.clamp, min=0.5)),
    lambda module: setattr(module, "function", partial(torch.relu)),
    lambda module: module.plain.add_(1),
    lambda module: module.constant.add_(1),
    lambda module: setattr(module, "new", None),
    lambda module: module.train(),
    retie,
    rebuild,
]


@pytest.mark.parametrize("change", CHANGES)
def test_everything_else_counts(change: Callable[[Configured], object]) -> None:
    module = Configured().eval()
    before = structure_digest(module)
    change(module)
    assert structure_digest(module) != before


def test_two_processes_agree() -> None:
    code = (
        "import torch\n"
        "from app.targets.templating.structure import structure_digest\n"
        "from tests.targets.templating.test_structure import Configured\n"
        "print(structure_digest(Configured().eval()))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert told == [structure_digest(Configured().eval())] * 2


def test_compiling_a_module_does_not_change_its_structure():
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    before = structure_digest(module)
    torch.jit.script(module)
    assert structure_digest(module) == before
