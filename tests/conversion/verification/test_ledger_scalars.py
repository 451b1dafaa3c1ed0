"""Weights of one element in frozen TorchScript: found by their place in the code, and missed where they are not."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.ledger.ledger import torchscript_ledger
from app.domain.architecture import Axis, InputSpec, Signature
from app.domain.checkpoint import LoadReport
from app.domain.report import Ledger
from tests.conversion.verification.ledger_cases import upload
from tests.conversion.verification.test_ledger_torchscript import rewrite

VECTOR = Signature(inputs=(InputSpec(name="x", shape=("batch", 6)),), axes=(Axis(name="batch", sample=2),))


class Slopes(nn.Module):
    """Two PReLUs, the first of them called twice, temperatures by multiplication and by exp, a head with one output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.PReLU(init=0.2), nn.PReLU(init=0.3)
        self.layer = nn.Linear(6, 6)
        self.temperature = nn.Parameter(torch.tensor(1.7))
        self.scale = nn.Parameter(torch.tensor([0.4]))
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.layer(self.first(x))) * self.temperature
        return self.head(self.first(x)) * self.scale.exp()


class Equal(Slopes):
    """Slopes and temperature are one number; freezing stores it once."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            for tensor in (self.first.weight, self.second.weight, self.temperature):
                tensor.fill_(0.25)


class Repeating(Slopes):
    """Calls one PReLU in a loop that stays a loop."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.shape[0]):
            x = self.first(self.layer(x)) * self.temperature
        return self.head(x) * self.scale + self.second.weight


class Tied(Slopes):
    """Both PReLUs are one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.second.weight = self.first.weight


def frozen(kind: Callable[[], nn.Module], how: str, directory: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    module = kind().eval()
    captured = torch.jit.script(module) if how == "script" else torch.jit.trace(module, torch.randn(2, 6))
    path = directory / "m.pt"
    torch.jit.freeze(captured).save(str(path))
    return module, path


def ledger_of(path: Path, module: nn.Module) -> Ledger:
    return torchscript_ledger(path, upload(module), LoadReport(strict=True), module, signature=VECTOR)


def numbers(path: Path) -> dict[str, float]:
    """The float32 constants of one element, by record."""
    with zipfile.ZipFile(path) as archive:
        found = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist() if "/constants/" in name}
    return {name: float(np.frombuffer(data, np.float32)[0]) for name, data in found.items() if len(data) == 4}


def stored(value: float) -> bytes:
    return np.float32(value).tobytes()


CASES = [(kind, how) for kind in (Slopes, Equal, Tied) for how in ("trace", "script")] + [(Repeating, "script")]


@pytest.mark.parametrize(("kind", "how"), CASES)
def test_frozen_numbers_are_found_where_they_are_used(kind: type[nn.Module], how: str, tmp_path: Path) -> None:
    module, path = frozen(kind, how, tmp_path)
    ledger = ledger_of(path, module)
    assert ledger.problems == ()
    classes = {entry.tensor: entry.ledger_class for entry in ledger.entries}
    assert classes["scale"] == ("identical" if kind is Repeating else "folded")
    assert {classes[name] for name in ("first.weight", "temperature", "head.bias")} == {"identical"}


@pytest.mark.parametrize(("kind", "how"), CASES)
def test_a_frozen_number_that_is_another_fails(kind: type[nn.Module], how: str, tmp_path: Path) -> None:
    module, path = frozen(kind, how, tmp_path)
    for name, value in numbers(path).items():
        rewrite(path, {name: stored(value * 1.01)})
        assert not ledger_of(path, module).passed, name
        rewrite(path, {name: stored(value)})
    assert ledger_of(path, module).passed


@pytest.mark.parametrize(("kind", "how"), [(Slopes, "trace"), (Slopes, "script"), (Repeating, "script")])
def test_two_frozen_numbers_exchanged_fail(kind: type[nn.Module], how: str, tmp_path: Path) -> None:
    module, path = frozen(kind, how, tmp_path)
    values = numbers(path)
    for one in values:
        for other in values:
            if one < other:
                rewrite(path, {one: stored(values[other]), other: stored(values[one])})
                assert not ledger_of(path, module).passed, (one, other)
                rewrite(path, {one: stored(values[one]), other: stored(values[other])})


def test_an_older_number_at_the_second_use_fails(tmp_path: Path) -> None:
    module, path = frozen(Slopes, "trace", tmp_path)
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".py"))
        code = archive.read(member).decode()
    first, second, again = re.findall(r"torch\.prelu\(\w+, CONSTANTS\.(c\d+)\)", code)
    assert first == again != second
    place = code.rindex(f"CONSTANTS.{again}")
    changed = code[:place] + code[place:].replace(again, second, 1)
    rewrite(path, {member.split("/", 1)[1]: changed.encode()})
    assert not ledger_of(path, module).passed
