"""The mode audit tells a training flag that changes something from one that eager sets in eval mode too."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.architectures.sample import sample_inputs
from app.conversion.verification.subject import Subject
from app.conversion.verification.verify import verify
from app.domain.architecture import Signature
from app.domain.report import Verdict
from app.targets.request import ExportRequest
from app.targets.torchscript.reading.audited import training_nodes
from app.targets.torchscript.spec import TorchScriptOptions
from tests.conversion.verification.subjects import (
    FEATURES,
    IMAGES,
    Perceptron,
    filled,
    subject,
    torchscript_subject,
)

FREEZING = [TorchScriptOptions(freeze=True), TorchScriptOptions(freeze=True, optimize_for_inference=True)]


class BatchStatistics(nn.Module):
    """A batch norm that keeps no statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).flatten(1)


class Dropping(nn.Module):
    """A dropout that is always on, with a rate of its own."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rate = rate
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(self.first(x), self.rate, training=True))


class Training(nn.Module):
    """A batch norm that takes the statistics of the batch although it has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)


def frozen_subject(module: nn.Module, directory: Path, exporter: str, options: TorchScriptOptions) -> Subject:
    sample = sample_inputs(FEATURES, {}, torch.Generator().manual_seed(0))
    made = filled(ExportRequest(module, FEATURES, options, sample), exporter, directory)
    return subject(module, FEATURES, made.path, made.report, claims=made.claims)


@pytest.mark.parametrize("options", FREEZING)
@pytest.mark.parametrize("exporter", ["trace", "script"])
def test_a_frozen_artifact_passes(exporter: str, options: TorchScriptOptions, tmp_path: Path) -> None:
    report = verify(frozen_subject(Perceptron(), tmp_path, exporter, options))
    assert report.verdict in (Verdict.passed, Verdict.pass_with_notes), report.findings
    assert report.eval_mode


@pytest.mark.parametrize(("module", "signature"), [(BatchStatistics(), IMAGES), (Dropping(0.0), FEATURES)])
def test_what_eager_does_in_eval_mode_too_is_no_training(
    module: nn.Module, signature: Signature, tmp_path: Path
) -> None:
    report = verify(torchscript_subject(module, signature, tmp_path))
    assert report.verdict is Verdict.passed, report.findings
    assert report.eval_mode


@pytest.mark.parametrize(("module", "kind"), [(Dropping(0.5), "aten::dropout"), (Training(), "aten::batch_norm")])
def test_a_flag_that_changes_something_is_named(module: nn.Module, kind: str) -> None:
    traced = torch.jit.trace(module, torch.rand(4, 6), check_trace=False)
    assert training_nodes(traced) == [kind]
