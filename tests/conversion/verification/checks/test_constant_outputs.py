"""Outputs that are compared exactly say nothing while they never move."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.verify import Mode, verify
from app.domain.architecture import OutputSpec, Signature
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import BATCH, FEATURES, findings, onnx_subject, torchscript_subject


class Deciding(nn.Module):
    """A class only; ``lean`` prefers one of them whatever the input."""

    def __init__(self, lean: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 5)
        self.last.bias.data[3] += lean
        self.eval()

    def scores(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.scores(x).argmax(-1)


class Positive(Deciding):
    """Booleans only."""

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x).amax(-1) > 1


class WithScores(Deciding):
    """The class beside the scores."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scores = self.scores(x)
        return scores.argmax(-1), scores


class WithLength(Deciding):
    """The class beside a number that is the same for all inputs."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.scores(x).argmax(-1), torch.full_like(x[:, 0], 6, dtype=torch.int64)


PAIR = Signature(inputs=FEATURES.inputs, axes=(BATCH,), outputs=(OutputSpec(name="y"), OutputSpec(name="z")))


def relu_for_tanh(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "Tanh":
            node.op_type = "Relu"


@pytest.mark.parametrize("module", [Deciding(8), Positive(8)])
@pytest.mark.parametrize("mode", ["full", "certified"])
def test_one_class_for_all_probes_proves_nothing(module: nn.Module, mode: Mode, tmp_path: Path) -> None:
    report = verify(onnx_subject(module, FEATURES, tmp_path), mode)
    assert report.verdict is Verdict.inconclusive
    assert findings(report)[Reason.insensitive].severity == "inconclusive"
    faulty = verify(onnx_subject(module, FEATURES, tmp_path, edit=relu_for_tanh), mode)
    assert faulty.verdict in (Verdict.inconclusive, Verdict.fail)


@pytest.mark.parametrize(
    ("module", "signature"), [(Deciding(0), FEATURES), (WithScores(8), PAIR), (WithLength(0), PAIR)]
)
def test_a_constant_beside_an_output_that_moves_passes(module: nn.Module, signature: Signature, tmp_path: Path) -> None:
    report = verify(onnx_subject(module, signature, tmp_path))
    assert report.verdict in (Verdict.passed, Verdict.pass_with_notes), report.findings


class WithAnchors(Deciding):
    """The scores beside a table that is the same for all inputs."""

    def __init__(self) -> None:
        super().__init__(0)
        self.register_buffer("anchors", torch.rand(3, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.scores(x), self.anchors * 2


class WithClassAndAnchors(WithAnchors):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.scores(x).argmax(-1), self.anchors * 2


class WithZeroHead(Deciding):
    """The scores beside a head that was never trained."""

    def __init__(self) -> None:
        super().__init__(0)
        self.head = nn.Linear(16, 3)
        nn.init.zeros_(self.head.weight)
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.scores(x), self.head(torch.tanh(self.first(x)))


class WithReadValue(Deciding):
    """The scores beside a table made of a number that Python has read from the input."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.scores(x), torch.full((3, 4), float(x.abs().max().clamp(max=0).item()))


@pytest.mark.parametrize("module", [WithAnchors(), WithClassAndAnchors()])
@pytest.mark.parametrize("mode", ["full", "certified"])
def test_a_float_constant_beside_an_output_that_moves_passes(module: nn.Module, mode: Mode, tmp_path: Path) -> None:
    report = verify(onnx_subject(module, PAIR, tmp_path), mode)
    assert report.verdict is Verdict.pass_with_notes, report.findings
    assert "no input reaches it" in findings(report)[Reason.constant_output].detail


@pytest.mark.parametrize("module", [WithZeroHead(), WithReadValue(0)])
def test_an_output_that_an_input_reaches_is_no_constant(module: nn.Module, tmp_path: Path) -> None:
    report = verify(torchscript_subject(module, PAIR, tmp_path))
    assert report.verdict is Verdict.inconclusive
