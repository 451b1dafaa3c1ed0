"""A check that raises has failed; a measurement that raises changes nothing but that it is missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification import verify as verifying
from app.conversion.verification.case import unhurried
from app.conversion.verification.check import Check
from app.conversion.verification.eager_side import full_eager_side
from app.conversion.verification.perturbation import CLASSES, draw_perturbations
from app.conversion.verification.verify import FULL, Mode, examine
from app.domain.errors import InvalidOptions
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import FEATURES, Perceptron, findings, onnx_subject, torchscript_subject


def replacing(name: str, run: Any) -> dict[Mode, tuple[Check, ...]]:
    """The lists of checks, with another function in the place of one."""
    return {
        mode: tuple(replace(c, run=run, needs=()) if c.name == name else c for c in checks)
        for mode, checks in verifying.CHECKS.items()
    }


def failing(evidence: Any) -> None:
    raise AttributeError("'NestedTensorImpl' doesn't support sizes")


@pytest.mark.parametrize("mode", ["full", "certified"])
@pytest.mark.parametrize("name", ["history", "reference", "session", "parity", "audit", "sensitivity", "ledger"])
def test_a_check_that_raises_has_failed_and_its_traceback_is_in_the_log(
    mode: Mode, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(verifying, "CHECKS", replacing(name, failing))
    report = examine(torchscript_subject(Perceptron(), FEATURES, tmp_path), mode).report
    assert report.verdict is Verdict.fail
    assert findings(report)[Reason.check_failed].detail.startswith(f"{name} could not be carried out: AttributeError")
    assert any(record.exc_info and "NestedTensorImpl" in str(record.exc_info[1]) for record in caplog.records)


@pytest.mark.parametrize("name", [check.name for check in FULL if check.measures])
def test_a_measurement_that_raises_is_named_and_the_verdict_stays(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    subject = torchscript_subject(Perceptron(), FEATURES, tmp_path)
    before = examine(subject).report
    monkeypatch.setattr(verifying, "CHECKS", replacing(name, failing))
    report = examine(subject).report
    assert (report.verdict, report.findings) == (before.verdict, before.findings)
    assert "NestedTensorImpl" in report.not_run[name]
    assert caplog.records[-1].exc_info


def test_what_is_meant_for_the_client_and_a_lack_of_memory_go_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = torchscript_subject(Perceptron(), FEATURES, tmp_path)
    for error in (InvalidOptions("the probes do not fit"), RuntimeError("DefaultCPUAllocator: can't allocate memory")):

        def raising(evidence: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(verifying, "CHECKS", replacing("reference", raising))
        with pytest.raises(type(error)):
            examine(subject)


def test_a_negative_control_that_raises_ends_no_preparation_of_the_models_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    subject = torchscript_subject(Perceptron(), FEATURES, tmp_path)
    monkeypatch.setattr("app.conversion.verification.eager_side.detection_of", lambda *_: failing(None))
    side = full_eager_side(subject, unhurried)
    assert side.detection is None
    assert "NestedTensorImpl" in side.not_run["detection"]
    report = examine(subject, "full", lambda: side).report
    assert report.verdict is Verdict.passed
    assert report.detection is None


def test_figures_are_taken_only_where_they_are_asked_for(tmp_path: Path) -> None:
    plain = examine(onnx_subject(Perceptron(), FEATURES, tmp_path)).report
    asked = onnx_subject(Perceptron(), FEATURES, tmp_path, measure=frozenset({"latency", "matrix"}))
    assert plain.latency is None
    assert plain.matrix is None
    for mode in ("full", "certified"):
        report = examine(asked, mode).report
        assert report.latency is not None
        assert report.matrix is not None
        assert report.verdict is plain.verdict


class Turned(nn.Module):
    """A linear layer whose weight is (in, out), as in transformers' Conv1D, in front of one that is square."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.bias = nn.Parameter(torch.randn(4)) if bias else None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


@pytest.mark.parametrize("bias", [True, False])
def test_classes_are_swapped_along_the_axis_that_the_bias_lies_along(bias: bool) -> None:
    module = Turned(bias)
    drawn = next(made for made in draw_perturbations(module, 20, seed=3) if made.kind == CLASSES)
    assert drawn.tensors["weight"].shape == (6, 4)
    if bias:
        places = (drawn.tensors["bias"] != module.bias).nonzero().flatten().tolist()
        expected = module.weight.detach().clone()
        expected[:, places] = expected[:, places[::-1]]
        assert torch.equal(drawn.tensors["weight"], expected)


def test_a_permuted_weight_that_is_not_contiguous_can_be_perturbed() -> None:
    module = nn.Linear(6, 4)
    module.weight = nn.Parameter(torch.randn(6, 4).t(), requires_grad=False)
    assert len(list(draw_perturbations(module.eval(), 8, seed=0))) == 8
