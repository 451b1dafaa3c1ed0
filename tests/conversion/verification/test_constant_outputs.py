"""Outputs that are compared exactly say nothing while they never move."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.verify import Mode, verify
from app.domain.architecture import OutputSpec, Signature
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import BATCH, FEATURES, findings, onnx_subject


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
