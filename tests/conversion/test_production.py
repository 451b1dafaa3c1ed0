"""What a conversion learns of its template key, and which failures end a rung only."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.conversion.job import BuiltTemplate, ConversionOutcome, StoredTemplate, UnsuitableTemplate
from app.domain.errors import ExportFailed, InvalidOptions
from app.domain.report import Verdict
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing import build as onnx_build
from app.targets.onnx.writing.template import load_onnx_template, save_onnx_template
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.writer import writer_of
from tests.conversion.verification.conversions import converted

_PLAIN = """
        return self.last(x)
"""
_READS = """
        return self.last(x) * float(self.last.bias.detach().numpy().max())
"""
_BAKES = """
        return x @ torch.from_numpy(self.last.weight.detach().numpy()).t()
"""
_TAKES_NUMBERS = """
        y = self.last(x)
        return y * torch.from_numpy(abs(self.last.weight.detach().numpy()).max(axis=1))
"""
_READS_INPUTS = """
        y = self.last(x) * torch.tensor([0.5, 1.5, 2.5, 3.5])
        return y if float(x.detach().abs().numpy().max()) < 1e6 else y * 2
"""
_BESSEL = """
        return torch.special.bessel_j0(self.last(x)) + [0.0 for _ in "script"][0]
"""
_BAKES_A_FEW = """
        return self.last(x) + self.last.bias.data
"""
OPTIONS = pytest.mark.parametrize("options", [OnnxOptions(), TorchScriptOptions()], ids=["onnx", "torchscript"])


@dataclass(frozen=True)
class Kept:
    template: StoredTemplate

    def find(self, key: str) -> StoredTemplate:
        return self.template


def kept(outcome: ConversionOutcome) -> Kept:
    assert isinstance(outcome.template, BuiltTemplate)
    return Kept(StoredTemplate(outcome.template.key, outcome.template.path, outcome.template.certificate))


def state(outcome: ConversionOutcome) -> str:
    assert outcome.report.export.template is not None
    return outcome.report.export.template.state


def trained() -> nn.Linear:
    """Other weights than those that the architecture begins with."""
    weights = nn.Linear(6, 4)
    with torch.no_grad():
        weights.weight.mul_(1.5)
    return weights


def poisoned() -> nn.Linear:
    weights = nn.Linear(6, 4)
    with torch.no_grad():
        weights.weight[1, 2] = float("nan")
    return weights


@OPTIONS
def test_a_checkpoint_of_nan_leaves_the_kept_template_to_others(
    options: OnnxOptions | TorchScriptOptions, tmp_path: Path
) -> None:
    templates = kept(converted(_PLAIN, options, tmp_path / "first"))
    spoiled = converted(_PLAIN, options, tmp_path / "spoiled", weights=poisoned(), templates=templates)
    assert spoiled.report.verification.verdict is Verdict.fail
    assert spoiled.discarded_template is None
    assert spoiled.template is None


@OPTIONS
def test_a_checkpoint_of_nan_that_comes_first_says_nothing_of_the_key(
    options: OnnxOptions | TorchScriptOptions, tmp_path: Path
) -> None:
    spoiled = converted(_PLAIN, options, tmp_path / "spoiled", weights=poisoned())
    assert spoiled.report.verification.verdict is Verdict.fail
    assert spoiled.template is None
    assert state(spoiled) == "unused"


def test_a_kept_graph_that_is_wrong_is_discarded_once_a_new_one_is_accepted(tmp_path: Path) -> None:
    templates = kept(converted(_PLAIN, OnnxOptions(), tmp_path / "first"))
    template = load_onnx_template(templates.template.path)
    swapped = replace(template, graph_head=template.graph_head.replace(b"Gemm", b"Gem2"))
    save_onnx_template(replace(swapped, path=tmp_path / "wrong"))
    wrong = Kept(replace(templates.template, path=tmp_path / "wrong"))
    outcome = converted(_PLAIN, OnnxOptions(), tmp_path / "again", templates=wrong)
    assert outcome.report.verification.verdict is Verdict.pass_with_notes
    assert outcome.discarded_template == templates.template.key
    assert state(outcome) == "discarded"
    assert [rung.exporter for rung in outcome.report.export.rungs] == ["template (stored)", "torchscript"]


def test_a_trace_that_reads_values_is_delivered_and_not_kept(tmp_path: Path) -> None:
    outcome = converted(_READS, TorchScriptOptions(), tmp_path)
    assert outcome.problem is None
    assert outcome.report.export.exporter == "trace"
    assert state(outcome) == "not_reusable"
    assert isinstance(outcome.template, UnsuitableTemplate)
    assert "needs values" in outcome.template.reason


def test_a_weight_that_leaves_torch_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match=r"constant|numpy"):
        converted(_BAKES, TorchScriptOptions(), tmp_path)


def test_numbers_made_of_weights_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="numbers that were made of these weights"):
        converted(_TAKES_NUMBERS, TorchScriptOptions(method="trace"), tmp_path, weights=trained())


def test_numbers_of_the_architecture_stay_in_a_graph_that_serves_no_others(tmp_path: Path) -> None:
    outcome = converted(_READS_INPUTS, TorchScriptOptions(method="trace"), tmp_path)
    assert outcome.problem is None
    assert state(outcome) == "not_reusable"


def test_a_small_weight_that_was_taken_for_a_constant_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match=r"constant of the weight last\.bias"):
        converted(_BAKES_A_FEW, TorchScriptOptions(method="trace"), tmp_path)


def test_an_exporter_that_raises_anything_gives_way_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = writer_of("onnx").capture

    def broken(request: object, exporter: str, sides: object = ()) -> object:
        if exporter == "torchscript":
            raise KeyError("unheard of")
        return capture(request, exporter, sides)  # type: ignore[arg-type]

    monkeypatch.setattr(writer_of("onnx"), "capture", broken)
    outcome = converted(_PLAIN, OnnxOptions(), tmp_path)
    assert outcome.report.export.exporter == "dynamo"
    assert [rung.outcome for rung in outcome.report.export.rungs] == ["failed", "succeeded"]


_ASKS_A_SIZE = """
        if x.shape[-1] != 6:
            raise ValueError("six features are needed")
        return self.last(x)
"""
_ASKS_A_VALUE = """
        y = self.last(x)
        if x.sum() > 1e6:
            y = y * 2
        return y
"""


def ladder(outcome: ConversionOutcome) -> list[tuple[str, str]]:
    return [(rung.exporter, rung.outcome) for rung in outcome.report.export.rungs]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_quick_exporter_suffices_where_the_code_decides_nothing_that_matters(threads: int, tmp_path: Path) -> None:
    for name, body in (("plain", _PLAIN), ("size", _ASKS_A_SIZE)):
        outcome = converted(body, OnnxOptions(), tmp_path / name, threads=threads)
        assert ladder(outcome) == [("torchscript", "succeeded")], outcome.report.export.rungs
        assert outcome.report.verification.verdict is Verdict.passed
        assert state(outcome) == "built"


def test_a_quick_capture_that_other_weights_could_not_use_waits_for_the_other_exporter(tmp_path: Path) -> None:
    outcome = converted(_READS, OnnxOptions(), tmp_path)
    assert ladder(outcome)[:3] == [("torchscript", "rejected"), ("dynamo", "failed"), ("torchscript", "succeeded")]
    assert "other weights could not use it" in str(outcome.report.export.rungs[0].reason)
    assert state(outcome) == "not_reusable"


def test_a_quick_capture_that_froze_a_value_gives_way_to_what_keeps_both_ways(tmp_path: Path) -> None:
    outcome = converted(_ASKS_A_VALUE, OnnxOptions(), tmp_path)
    assert ladder(outcome)[:2] == [("torchscript", "rejected"), ("dynamo", "failed")]
    assert outcome.report.export.exporter == "torchscript-scripted", outcome.report.export.rungs
    assert outcome.report.verification.verdict is Verdict.passed


def test_half_precision_is_exported_as_it_was_compared(tmp_path: Path) -> None:
    outcome = converted(_PLAIN, OnnxOptions(precision="fp16"), tmp_path)
    assert ladder(outcome) == [("dynamo", "succeeded")]


def test_the_first_sentence_of_a_failure_is_the_cause_that_an_exporter_named(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed) as refused:
        converted(_BESSEL, OnnxOptions(), tmp_path)
    cause, *others = refused.value.detail.split("; ")
    assert "aten::special_bessel_j0" in cause
    assert [other.partition(":")[0] for other in others] == ["dynamo", "torchscript-scripted"]
    assert "exporter=torchscript" not in str(refused.value.told_hint)
    assert len(refused.value.extra["rungs"]) > len(others)


def test_an_optimiser_that_raises_leaves_the_graph_as_it_was_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: object) -> None:
        raise RuntimeError("a rare graph")

    monkeypatch.setattr(onnx_build, "optimise", broken)
    outcome = converted(_PLAIN, OnnxOptions(), tmp_path)
    assert outcome.report.verification.verdict is Verdict.passed
    assert state(outcome) == "built"


_KEEPS = """
        self.doubled = self.last.weight * 2
        return torch.nn.functional.linear(x, self.doubled, self.last.bias)
"""


@pytest.mark.parametrize(
    "options",
    [
        OnnxOptions(exporter="dynamo"),
        OnnxOptions(exporter="torchscript"),
        TorchScriptOptions(method="trace"),
        TorchScriptOptions(method="trace", freeze=True),
    ],
    ids=["dynamo", "torchscript exporter", "trace", "frozen trace"],
)
def test_what_a_capture_leaves_in_the_module_is_no_part_of_the_template(
    options: OnnxOptions | TorchScriptOptions, tmp_path: Path
) -> None:
    first = converted(_KEEPS, options, tmp_path / "first", weights=trained())
    assert state(first) == "built"
    second = converted(_KEEPS, options, tmp_path / "second", templates=kept(first))
    assert state(second) == "reused", second.report.export.template
    assert second.report.verification.verdict in (Verdict.passed, Verdict.pass_with_notes)


_BEYOND_EIGHT = """
        return self.last(x) if x.shape[0] < 8 else self.last(x.flip(0).rot90(1, (0, 1)).rot90(-1, (0, 1)))
"""


@OPTIONS
def test_captures_of_both_sides_are_joined_and_their_template_serves_other_weights(
    options: OnnxOptions | TorchScriptOptions, tmp_path: Path
) -> None:
    only = {"exporter": "dynamo"} if isinstance(options, OnnxOptions) else {"method": "trace"}
    options = options.model_copy(update=only)
    first = converted(_BEYOND_EIGHT, options, tmp_path / "first")
    assert first.report.verification.verdict is Verdict.passed, first.report.verification.findings
    assert first.report.export.exporter == "joined"
    assert [rung.outcome for rung in first.report.export.rungs] == ["rejected", "succeeded"]
    repeated = converted(_BEYOND_EIGHT, options, tmp_path / "second", weights=trained(), templates=kept(first))
    assert repeated.report.verification.verdict is Verdict.passed, repeated.report.verification.findings
    assert state(repeated) == "reused"


def test_a_clients_probe_that_the_model_does_not_take_is_told_before_anything_is_made(tmp_path: Path) -> None:
    np.savez(tmp_path / "probes.npz", x=np.ones((3, 6), np.float32))
    body = """
        if bool((x == 1).all()):
            raise ValueError("nothing but ones")
        return self.last(x)
"""
    with pytest.raises(InvalidOptions, match="nothing but ones") as refused:
        converted(body, OnnxOptions(), tmp_path / "made", probes=tmp_path / "probes.npz")
    assert refused.value.stage == "load"
