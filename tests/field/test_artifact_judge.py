"""The judge that verification shares nothing with: it sees what is wrong with a file, and nothing where nothing is."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.domain.architecture import Axis, InputSpec, Signature
from scripts.artifact_judge import Judgement, judge

ROOT = Path(__file__).parent.parent.parent
ROWS = Signature(
    inputs=(InputSpec(name="x", shape=("batch", "n")),), axes=(Axis(name="batch"), Axis(name="n", sample=6, maximum=40))
)


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class OnlySix(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :6] * 2


class SlightlyMore(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2.0005


class Wide(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 2).double()


class Twice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x * 2


class Upwards(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 1, torch.inf, x)


class Downwards(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 1, -torch.inf, x)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs.add_(1)
        return x * self.runs


class Refusing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("not these")


def judged(eager: type[nn.Module], delivered: type[nn.Module], directory: Path) -> Judgement:
    torch.jit.script(delivered()).save(str(directory / "model.pt"))
    return judge(eager, ROWS, directory / "model.pt", {"n": [1, 6, 11]})


def test_a_right_file_is_right_at_every_size(tmp_path: Path) -> None:
    verdict = judged(Double, Double, tmp_path)
    assert verdict.right
    assert verdict.refused == 0
    assert verdict.trials > 10


@pytest.mark.parametrize(
    ("eager", "delivered", "words"),
    [
        (Double, OnlySix, '"n": 11'),
        (Double, SlightlyMore, "error"),
        (Double, Wide, "float64"),
        (Double, Twice, "2 outputs, eager 1"),
        (Upwards, Downwards, "infinity"),
        (Counting, Counting, "error"),
    ],
)
def test_what_differs_from_eager_is_found(
    eager: type[nn.Module], delivered: type[nn.Module], words: str, tmp_path: Path
) -> None:
    verdict = judged(eager, delivered, tmp_path)
    assert not verdict.right
    assert any(words in fault for fault in verdict.faults), verdict


def test_a_file_that_nothing_was_tried_on_is_not_right(tmp_path: Path) -> None:
    verdict = judged(Refusing, Double, tmp_path)
    assert (verdict.right, verdict.trials) == (False, 0)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    assert "does not load" in judge(Double, ROWS, tmp_path / "model.onnx").faults[0]


def test_the_judge_imports_nothing_of_the_conversion() -> None:
    code = "import sys, scripts.artifact_judge; print([m for m in sys.modules if m.startswith('app.conversion')])"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
