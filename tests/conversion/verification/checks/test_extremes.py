"""A way that only the exporter took, and that agrees with eager on ordinary inputs, is found on extreme ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.verify import verify
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import FEATURES, Perceptron, findings, onnx_subject, torchscript_subject


class Clamped(nn.Module):
    """Bounds its hidden values at 40, except while ``exporting`` says that it is exported."""

    def __init__(self, exporting: Callable[[], bool]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
        self.exporting = exporting
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        bound = 1e5 if self.exporting() else 40.0
        return self.last(self.first(x).clamp(-bound, bound))


@pytest.mark.parametrize("flag", [torch.onnx.is_in_onnx_export, torch.compiler.is_exporting])
def test_a_bound_that_the_onnx_exporter_moved_fails(flag: Callable[[], bool], tmp_path: Path) -> None:
    report = verify(onnx_subject(Clamped(flag), FEATURES, tmp_path))
    assert Reason.parity in findings(report)


def test_a_bound_that_the_tracer_moved_fails(tmp_path: Path) -> None:
    report = verify(torchscript_subject(Clamped(torch.jit.is_tracing), FEATURES, tmp_path))
    assert Reason.parity in findings(report)


def test_a_model_without_such_a_way_passes(tmp_path: Path) -> None:
    assert verify(onnx_subject(Clamped(lambda: False), FEATURES, tmp_path)).verdict is Verdict.passed
    report = verify(torchscript_subject(Perceptron(), FEATURES, tmp_path))
    assert (report.verdict, "extremes" in report.timings) == (Verdict.passed, True)
