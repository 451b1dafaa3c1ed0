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


class Mixing(nn.Module):
    """A matrix and a buffer beside a layer, which subclasses write into in their own ways."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 4)
        self.mix = nn.Parameter(torch.randn(4, 4), requires_grad=False)
        self.register_buffer("shift", torch.randn(4))
        self.eval()


class ThroughView(Mixing):
    def forward(self, x: Tensor) -> Tensor:
        self.mix.view(-1).clamp_(-0.5, 0.5)
        return self.layer(x) @ self.mix


class IntoSlice(Mixing):
    def forward(self, x: Tensor) -> Tensor:
        self.mix[:, 1:] = 0.5
        return self.layer(x) @ self.mix


class OfSubmodule(Mixing):
    def forward(self, x: Tensor) -> Tensor:
        self.layer.weight.detach().clamp_(-0.1, 0.1)
        return self.layer(x) @ self.mix


class ThroughData(Mixing):
    def forward(self, x: Tensor) -> Tensor:
        self.mix.data.t().clamp_(-0.5, 0.5)
        return self.layer(x) @ self.mix


class AfterReading(Mixing):
    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x) @ self.mix + self.shift
        self.shift.clamp_(-0.1, 0.1)
        return y


class BoundAnew(Mixing):
    def forward(self, x: Tensor) -> Tensor:
        self.shift = self.shift.clamp(-0.1, 0.1)
        return self.layer(x) @ self.mix + self.shift


class Normed(Mixing):
    """An embedding's max_norm, which scales down the rows that it looks up."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4, max_norm=0.1).eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) @ self.mix + self.table(torch.zeros(1, dtype=torch.int64))


REWRITING = {
    ThroughView: "mix",
    IntoSlice: "mix",
    OfSubmodule: "layer.weight",
    ThroughData: "mix",
    AfterReading: "shift",
    BoundAnew: "shift",
    Normed: "table.weight",
}


class Copying(Mixing):
    """Writes into what it made of its weights, and into its outputs."""

    def forward(self, x: Tensor) -> Tensor:
        mix = self.mix.clone()
        mix.view(-1).mul_(2.0)
        return torch.relu_((self.layer(x) @ mix).add_(self.shift))


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


@pytest.mark.parametrize("target", ["onnx", "torchscript"])
def test_a_counter_that_nothing_depends_on_passes(target: str, tmp_path: Path) -> None:
    if target == "onnx":
        report = verify(onnx_subject(Counting(), FEATURES, tmp_path, exporter="torchscript"))
    else:
        report = verify(torchscript_subject(Counting(), FEATURES, tmp_path))
    assert report.verdict is Verdict.pass_with_notes, report.findings


@pytest.mark.parametrize("kind", REWRITING)
def test_a_weight_written_through_a_view_fails_the_ledger(kind: type[Mixing], tmp_path: Path) -> None:
    report = verify(torchscript_subject(kind().requires_grad_(False), FEATURES, tmp_path))
    assert report.verdict is Verdict.fail
    assert f"{REWRITING[kind]}: the model rewrites its weights" in findings(report)[Reason.ledger].detail


def test_a_model_that_writes_into_copies_passes(tmp_path: Path) -> None:
    report = verify(torchscript_subject(Copying().requires_grad_(False), FEATURES, tmp_path))
    assert report.verdict is Verdict.passed, report.findings
