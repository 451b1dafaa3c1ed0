"""A model whose forward writes into its weights changes the upload too, with which it shares memory."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.verify import verify
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import FEATURES, findings, onnx_subject, torchscript_subject


class Clamped(nn.Module):
    """Keeps its weights in a range, at every call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 4)
        self.layer.weight.data *= 5
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.layer.weight.clamp_(-0.5, 0.5)
        return self.layer(x)


class Counting(nn.Module):
    """Counts its calls, for nobody."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.layer(x)


@pytest.mark.parametrize("target", ["onnx", "torchscript"])
def test_a_model_that_rewrites_its_weights_fails_the_ledger(target: str, tmp_path: Path) -> None:
    module = Clamped()
    if target == "onnx":
        report = verify(onnx_subject(module, FEATURES, tmp_path, exporter="torchscript"))
    else:
        report = verify(torchscript_subject(module, FEATURES, tmp_path))
    assert report.verdict is Verdict.fail
    assert "layer.weight: the model rewrites its weights" in findings(report)[Reason.ledger].detail


def test_a_counter_that_nothing_depends_on_passes(tmp_path: Path) -> None:
    report = verify(onnx_subject(Counting(), FEATURES, tmp_path, exporter="torchscript"))
    assert report.verdict is Verdict.pass_with_notes, report.findings
