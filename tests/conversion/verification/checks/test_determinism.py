"""A model that remembers its calls is told of, also where its artifact remembers them just so."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.verify import verify
from app.domain.report import Reason
from tests.conversion.verification.subjects import FEATURES, torchscript_subject


class Counting(nn.Module):
    """Answers otherwise from some call on."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(6, 4)
        self.limit, self.calls = limit, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.last(x) + (0.5 if self.calls > self.limit else 0.0)


class Caching(nn.Module):
    """Keeps what it computed for the largest batch so far, of which it always uses the same part."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(6, 4)
        self.kept = torch.zeros(0, 6)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if self.kept.shape[0] < x.shape[0]:
            self.kept = torch.arange(x.shape[0] * 6).view(-1, 6).sin()
        return self.last(x + self.kept[: x.shape[0]])


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_whatever_number_of_calls_it_remembers(limit: int, tmp_path: Path) -> None:
    module = Counting(limit)
    report = verify(torchscript_subject(module, FEATURES, tmp_path, exporter="script"))
    assert Reason.nondeterministic in [finding.reason for finding in report.findings]
    assert not report.verdict.proved


def test_a_cache_that_changes_no_answer_is_no_memory(tmp_path: Path) -> None:
    report = verify(torchscript_subject(Caching(), FEATURES, tmp_path, exporter="script"))
    assert Reason.nondeterministic not in [finding.reason for finding in report.findings]


class Growing(Caching):
    """Keeps that in a buffer, of which the file holds what there was when it was captured."""

    def __init__(self) -> None:
        super().__init__()
        del self.kept
        self.register_buffer("kept", torch.arange(6.0).view(1, 6).sin(), persistent=False)


def test_a_buffer_that_grew_meanwhile_is_held_against_what_was_captured(tmp_path: Path) -> None:
    report = verify(torchscript_subject(Growing(), FEATURES, tmp_path, exporter="script"))
    assert report.ledger is not None
    assert report.ledger.passed, report.ledger.problems
