"""precision=int8: derived from the verified float32 graph, held to a budget, every level computed anew."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from app.conversion.job import ConversionOutcome
from app.conversion.verification.ledger.ledger import ledger_of
from app.domain.checkpoint import LoadReport
from app.domain.conversion import AccuracyBudget
from app.domain.report import Ledger, Reason, Verdict
from app.targets.onnx.reading.runtime import OnnxRuntime
from app.targets.onnx.reading.tensors import read_onnx
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.int8 import in_int8, layers_of
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.onnx.writing.writer import WRITER
from tests.conversion.verification.conversions import converted
from tests.targets.capturing import Attention, ConvNet, Tied, draw, request_for, train_a_little

BODY = "        return torch.relu(self.last(x))"


@pytest.mark.parametrize("kind", [ConvNet, Attention, Tied])
def test_other_weights_fill_a_graph_in_8_bits(kind: type[nn.Module], tmp_path: Path) -> None:
    request = request_for(train_a_little(kind(), 1), options=OnnxOptions())
    template = WRITER.build_template(WRITER.capture(request, "dynamo"), request, tmp_path / "template")
    layers = layers_of(template)
    assert layers
    other = train_a_little(kind(), 2)
    written = WRITER.fill(in_int8(template, layers), other.state_dict(), request, tmp_path / "int8.onnx")
    onnx.checker.check_model(str(written.path), full_check=True)
    x = draw(request.signature.inputs[0], 3)
    with torch.inference_mode():
        expected = other(x)
    (given,) = OnnxRuntime(written.path).run({"x": x}).values()
    assert given.shape == expected.shape
    assert 0 < float((given - expected).norm()) < 0.1 * float(expected.norm())


@pytest.mark.parametrize("kind", [ConvNet, Attention])
def test_a_weight_that_is_one_level_off_is_a_weight_fault(kind: type[nn.Module], tmp_path: Path) -> None:
    module = train_a_little(kind(), 1)
    request = request_for(module, options=OnnxOptions())
    template = WRITER.build_template(WRITER.capture(request, "dynamo"), request, tmp_path / "template")
    layers = layers_of(template)
    int8, state = in_int8(template, layers), module.state_dict()
    right = books(int8, state, module, tmp_path / "right.onnx", state)
    assert right.passed, right.problems
    classes = {entry.tensor: entry.ledger_class for entry in right.entries}
    assert {classes[layer.name] for layer in layers} <= {"quantized", "folded"}
    for layer in layers:
        faulty = {name: value.clone() for name, value in state.items()}
        weight = faulty[layer.name].view(-1)
        weight[weight.abs().argmin()] += weight.abs().max() / 127
        assert not books(int8, faulty, module, tmp_path / "faulty.onnx", state).passed, layer.name


def books(
    template: OnnxTemplate, held: dict[str, Tensor], module: nn.Module, path: Path, uploaded: dict[str, Tensor]
) -> Ledger:
    request = request_for(module, options=OnnxOptions())
    written = WRITER.fill(template, held, request, path)
    return ledger_of(
        read_onnx(written.path),
        WRITER.claims(template),
        uploaded=uploaded,
        load=LoadReport(strict=True),
        module=module,
        signature=request.signature,
    )


def outcome(directory: Path, budget: AccuracyBudget | None = None) -> ConversionOutcome:
    return converted(BODY, OnnxOptions(precision="int8", budget=budget), directory)


def test_both_links_are_proved_and_the_verdict_is_its_own_word(tmp_path: Path) -> None:
    report = outcome(tmp_path).report
    verification = report.verification
    assert verification.verdict is Verdict.within_budget, verification.findings
    assert verification.budget is not None
    assert verification.budget.default
    (output,) = verification.budget.outputs
    assert output.snr_db is not None
    assert 20 < output.snr_db < 80
    assert output.top1 is not None
    exact = report.derived_from
    assert exact is not None
    assert exact.verification.verdict is Verdict.passed, exact.verification.findings
    assert exact.verification.mode == "full"
    assert exact.verification.ledger is not None
    assert {entry.ledger_class for entry in exact.verification.ledger.entries} <= {"identical", "transposed"}
    assert verification.ledger is not None
    assert {e.tensor: e.ledger_class for e in verification.ledger.entries}["last.weight"] == "quantized"
    assert report.export.quantization is not None
    assert [layer.precision for layer in report.export.quantization.layers] == ["int8"]


def test_a_budget_that_no_layer_meets_is_refused_with_the_layers_named(tmp_path: Path) -> None:
    ended = outcome(tmp_path, AccuracyBudget(snr_db=140))
    assert ended.report.verification.verdict is Verdict.fail
    assert {f.reason for f in ended.report.verification.findings if f.severity == "fail"} == {Reason.over_budget}
    assert ended.problem is not None
    assert ended.problem.code == "over_budget"
    assert "the layers that lose most: last.weight" in ended.problem.detail
