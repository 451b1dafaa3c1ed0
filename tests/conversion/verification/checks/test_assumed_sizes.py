"""Graphs that are right at the sizes tried and were not made for all that are declared."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.conversion.decisions import search
from app.domain.architecture import Axis, InputSpec, OutputSpec, Signature
from app.domain.report import Reason, Verdict
from app.targets.onnx.spec import OnnxOptions
from tests.conversion.verification.conversions import converted
from tests.conversion.verification.subjects import BATCH, findings
from tests.conversion.verification.targets import verified


def sequences(**more: int) -> Signature:
    axes = (BATCH, Axis(name="seq", sample=16, **more))
    return Signature(
        inputs=(InputSpec(name="x", shape=("batch", "seq", 6)),), axes=axes, outputs=(OutputSpec(name="y"),)
    )


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(1, 32, 6))
        self.last = nn.Linear(6, 4)
        self.eval()


class Long(Sequences):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 64:
            x = x - x.mean(1, keepdim=True)
        return self.last(x + self.table[:, :1])


class Interpolated(Sequences):
    def forward(self, x: Tensor) -> Tensor:
        n, table = x.shape[1], self.table
        stretched = F.interpolate(table.transpose(1, 2), size=n, mode="linear").transpose(1, 2)
        return self.last(x + (table[:, :n] if n <= 32 else stretched))


class Short(Sequences):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < 8:
            x = x * 2
        return self.last(x + self.table[:, :1])


class Residue(Sequences):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] % 4 == 3:
            x = x * 2
        return self.last(x + self.table[:, :1])


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        (
            Long,
            {"maximum": 512},
            "holds for seq <= 64 (test_assumed_sizes.py:",
        ),
        (Long, {}, "seq 65"),
        (Long, {"multiple_of": 16}, "seq 80"),
        (Interpolated, {"maximum": 256}, "seq 64"),
        (Residue, {}, "seq 1"),
    ],
)
def test_a_graph_made_for_fewer_sizes_than_declared_is_inconclusive(
    kind: type[nn.Module], more: dict[str, int], told: str, tmp_path: Path
) -> None:
    report = verified(kind(), sequences(**more), tmp_path, "onnx", "dynamo")
    assert report.verdict in (Verdict.inconclusive, Verdict.fail)
    assert told in findings(report)[Reason.assumed_sizes].detail


def test_a_graph_that_is_wrong_at_the_least_size_fails(tmp_path: Path) -> None:
    report = verified(Short(), sequences(), tmp_path, "onnx", "dynamo")
    assert "does not hold at size 1" in findings(report)[Reason.dims].detail


class Limited(Sequences):
    """Takes no more than its table holds, which is what the program assumes too."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.table[:, : x.shape[1]])


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (Long, {"maximum": 64}),
        (Interpolated, {"maximum": 32}),
        (Short, {"minimum": 8}),
        (Residue, {"multiple_of": 4}),
        (Limited, {}),
        (Limited, {"maximum": 256}),
    ],
)
def test_what_is_assumed_of_undeclared_sizes_is_no_objection(
    kind: type[nn.Module], more: dict[str, int], tmp_path: Path
) -> None:
    report = verified(kind(), sequences(**more), tmp_path, "onnx", "dynamo")
    assert Reason.assumed_sizes not in findings(report)


@pytest.mark.parametrize("kind", [Long, Interpolated])
def test_a_trace_of_one_way_through_the_sizes_is_inconclusive(kind: type[nn.Module], tmp_path: Path) -> None:
    report = verified(kind(), sequences(maximum=512), tmp_path, "torchscript", "trace")
    assert report.verdict is Verdict.inconclusive, report.findings
    assert "seq" in findings(report)[Reason.assumed_sizes].detail


class Longer(Sequences):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 1000:
            x = x - x.mean(1, keepdim=True)
        return self.last(x + self.table[:, :1])


@pytest.mark.parametrize(("kind", "size"), [(Residue, 15), (Longer, 1001)])
def test_a_trace_is_doubted_at_sizes_near_and_far(kind: type[nn.Module], size: int, tmp_path: Path) -> None:
    report = verified(kind(), sequences(), tmp_path, "torchscript", "trace")
    assert report.verdict is Verdict.inconclusive, report.findings
    assert f"seq {size}" in findings(report)[Reason.assumed_sizes].detail


class Asserting(Sequences):
    """Decides on a size, the same at all of them."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] != 6 or x.shape[1] > 512:
            raise ValueError("wrong size")
        return self.last(x + self.table[:, :1])


def test_a_trace_whose_code_calls_the_same_at_all_sizes_is_not_doubted(tmp_path: Path) -> None:
    report = verified(Asserting(), sequences(maximum=512), tmp_path, "torchscript", "trace")
    assert report.verdict is Verdict.passed
    assert Reason.assumed_sizes not in findings(report)


_LONG = """
        if x.shape[1] > 64:
            x = x - x.mean(1, keepdim=True)
        return self.last(x)
"""


def test_auto_goes_on_to_an_exporter_that_keeps_the_branch(tmp_path: Path) -> None:
    axes = '(Axis(name="batch"), Axis(name="seq", sample=16, maximum=512))'
    outcome = converted(_LONG, OnnxOptions(), tmp_path, shape='("batch", "seq", 6)', axes=axes)
    assert outcome.report.export.exporter == "torchscript-scripted"
    assert Reason.assumed_sizes not in findings(outcome.report.verification)
    assert any("assumed_sizes" in str(rung.reason) for rung in outcome.report.export.rungs)


def test_a_search_that_was_ended_early_is_a_note_and_names_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FIRST_SECONDS", 0.0)
    report = verified(Limited(), sequences(maximum=32), tmp_path, "onnx", "dynamo")
    assert report.verdict is Verdict.pass_with_notes, report.findings
    assert "too long" in findings(report)[Reason.unfollowed_code].detail


def test_sizes_at_which_the_code_was_not_followed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "OPERATORS", 0)
    report = verified(Long(), sequences(maximum=512), tmp_path, "onnx", "torchscript")
    assert "seq 65" in report.not_run["decisions"]
    assert "seq <= 64" in findings(report)[Reason.assumed_sizes].detail


class Enlarged(Sequences):
    """2 · 1.3 and 3 · 1.3 are 2 and 3 rows again, which onnxruntime copies; torch reads between them."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.last(x)[:, None], scale_factor=1.3, mode="bilinear")


def test_small_sizes_are_run_though_no_code_asks_for_them(tmp_path: Path) -> None:
    report = verified(Enlarged(), sequences(maximum=64), tmp_path, "onnx", "torchscript")
    told = findings(report)[Reason.assumed_sizes].detail
    assert report.verdict is Verdict.inconclusive
    assert "holds for seq > 3, and the artifact is wrong at batch 2, seq 2" in told
