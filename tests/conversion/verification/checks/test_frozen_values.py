"""Models whose Python reads values of their inputs: a trace keeps one case, so it is never simply passed."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.conversion.decisions.search import find_decisions
from app.conversion.verification.checks.decisions import value_findings
from app.domain.architecture import Signature
from app.domain.report import Reason, Verdict
from app.targets.request import ExportRequest
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.torchscript.writing import exporter as torchscript
from tests.conversion.verification.conversions import converted
from tests.conversion.verification.subjects import FEATURES, Perceptron, findings
from tests.conversion.verification.targets import verified

LIMIT = 1e6


class Scaled(Perceptron):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / LIMIT if self.large(x) else x)

    def large(self, x: Tensor) -> bool:
        raise NotImplementedError


class ByComparison(Scaled):
    def large(self, x: Tensor) -> bool:
        return bool(x.abs().max() > LIMIT)


class ByNumpy(Scaled):
    def large(self, x: Tensor) -> bool:
        return float(abs(x.detach().numpy()).max()) > LIMIT


class ByEqual(Scaled):
    def large(self, x: Tensor) -> bool:
        return not torch.equal(x, x.clamp(-LIMIT, LIMIT))


class ByAllclose(Scaled):
    def large(self, x: Tensor) -> bool:
        return not torch.allclose(x, x.clamp(-LIMIT, LIMIT))


class ByList(Scaled):
    def large(self, x: Tensor) -> bool:
        return max(map(abs, x.flatten().tolist())) > LIMIT


class ByNonzero(Scaled):
    def large(self, x: Tensor) -> bool:
        return torch.is_nonzero(x.abs().max() > LIMIT)


class ByMemory(Scaled):
    """Reads a tensor that the input was written into, through a view."""

    def large(self, x: Tensor) -> bool:
        kept = torch.zeros(x.shape)
        kept[:, 1:].copy_(x[:, 1:])
        return bool(kept.max() > LIMIT)


BRANCHING = (ByComparison, ByNumpy, ByEqual, ByAllclose, ByList, ByNonzero, ByMemory)


@pytest.mark.parametrize("kind", BRANCHING)
@pytest.mark.parametrize("target", ["onnx", "torchscript"])
def test_a_trace_that_froze_a_branch_on_values_is_inconclusive(
    target: Literal["onnx", "torchscript"], kind: type[Scaled], tmp_path: Path
) -> None:
    report = verified(kind(), FEATURES, tmp_path, target, "torchscript" if target == "onnx" else "trace")
    assert report.verdict is Verdict.inconclusive, report.findings
    assert "decides on values of its inputs (test_frozen_values.py:" in findings(report)[Reason.frozen_values].detail


class ByShape(Perceptron):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.shape[0] < 100 else x * 2)


class ByWeight(Perceptron):
    """The answer is the weights', not the inputs'."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2 if self.first.weight.sum() > 0 else x)


class Checking(Perceptron):
    """Reads values, but not while it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_tracing() and x.max() > 1e9:
            raise ValueError("too large")
        return super().forward(x)


class OwnChecks(nn.Module):
    """torch's encoder checks its mask by value."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unsqueeze(1).repeat(1, 3, 1)
        return self.encoder(rows, mask=torch.triu(rows.new_ones(3, 3), 1).bool()).mean(1)


@pytest.mark.parametrize("kind", [Perceptron, ByShape, ByWeight, Checking, OwnChecks])
def test_shapes_weights_and_torch_s_own_checks_are_no_reads_of_values(kind: type[nn.Module]) -> None:
    module = kind()
    kept = torchscript.capture(_request(module, FEATURES), "trace").kept
    assert value_findings(find_decisions(EagerModel(module, FEATURES)), kept) == []


def test_the_state_of_the_random_generator_is_left_alone() -> None:
    class Noisy(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand(4)

    module = Noisy()
    before = torch.random.get_rng_state()
    find_decisions(EagerModel(module, FEATURES))
    assert torch.equal(before, torch.random.get_rng_state())


def test_of_a_forward_that_fails_nothing_is_known_but_why() -> None:
    class Broken(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no")

    decisions = find_decisions(EagerModel(Broken(), FEATURES))
    assert (decisions.sizes, decisions.values, decisions.unfollowed) == ((), (), "ValueError: no")


def test_auto_goes_on_to_script_which_keeps_the_branch(tmp_path: Path) -> None:
    outcome = converted(_SCRIPTABLE, TorchScriptOptions(), tmp_path)
    assert outcome.report.verification.verdict is Verdict.passed, outcome.report.verification.findings
    assert outcome.report.export.exporter == "script"
    rejected = [rung for rung in outcome.report.export.rungs if rung.outcome == "rejected"]
    assert any("frozen_values" in str(rung.reason) for rung in rejected)
    x = torch.full((2, 6), 3e6)
    loaded = torch.jit.load(str(tmp_path / "work" / outcome.report.artifact.filename))
    assert torch.allclose(loaded(x), loaded(x / LIMIT))


def test_where_nothing_else_can_be_made_the_trace_is_delivered_as_inconclusive(tmp_path: Path) -> None:
    outcome = converted(_NOT_SCRIPTABLE, TorchScriptOptions(), tmp_path)
    assert outcome.problem is None
    assert outcome.report.verification.verdict is Verdict.inconclusive
    assert outcome.report.export.exporter == "trace"
    assert [rung.outcome for rung in outcome.report.export.rungs if rung.exporter == "trace"] == ["succeeded"]
    assert Reason.frozen_values in findings(outcome.report.verification)


_SCRIPTABLE = """
        if x.max() > 1e6:
            x = x / 1e6
        return self.last(x)
"""
_NOT_SCRIPTABLE = """
        if float(abs(x.detach().numpy()).max()) > 1e6:
            x = x / 1e6
        return self.last(x)
"""


def _request(module: nn.Module, signature: Signature) -> ExportRequest:
    return ExportRequest(module.eval(), signature, TorchScriptOptions(), {"x": torch.randn(2, 6)})
