"""precision=fp16: half the bytes, inputs and outputs as they were, its own gate, and what stays in float32 named."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from app.conversion.job import ConversionOutcome
from app.domain.architecture import InputSpec
from app.domain.report import Verdict
from app.targets.onnx.reading.runtime import OnnxRuntime
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.writer import WRITER
from tests.conversion.verification.conversions import converted
from tests.targets.capturing import Attention, ConvNet, Recurrent, Tied, draw, request_for, train_a_little

FP16 = OnnxOptions(precision="fp16")


@pytest.mark.parametrize("kind", [ConvNet, Attention, Tied])
def test_other_weights_fill_a_graph_in_half_precision(kind: type[nn.Module], tmp_path: Path) -> None:
    request = request_for(train_a_little(kind(), 1), options=FP16)
    WRITER.build_template(WRITER.capture(request, "dynamo"), request, tmp_path / "template")
    other = request_for(train_a_little(kind(), 2), options=FP16)
    template = WRITER.load_template(tmp_path / "template")
    written = WRITER.fill(template, other.module.state_dict(), other, tmp_path / "half.onnx")
    onnx.checker.check_model(str(written.path), full_check=True)
    model = onnx.load(written.path)
    kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert kinds <= {TensorProto.FLOAT, TensorProto.INT64}
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT and tensor.dims]
    assert not floats
    x = draw(other.signature.inputs[0], 3)
    with torch.inference_mode():
        expected = other.module(x)
    (given,) = OnnxRuntime(written.path).run({"x": x}).values()
    assert 0 < float((given - expected).abs().max()) < 0.02 * float(expected.abs().max())


def test_recurrent_layers_stay_in_float32_among_others_in_float16(tmp_path: Path) -> None:
    spec = InputSpec(name="x", shape=(2, 5, 6))
    request = request_for(train_a_little(Recurrent(), 1), spec, FP16)
    template = WRITER.build_template(WRITER.capture(request, "dynamo"), request, tmp_path / "template")
    (told,) = [warning for warning in template.warnings if warning.startswith("fp16:")]
    assert "LSTM" in told
    written = WRITER.fill(template, request.module.state_dict(), request, tmp_path / "half.onnx")
    stored = {tensor.data_type for tensor in onnx.load(written.path).graph.initializer}
    assert stored >= {TensorProto.FLOAT, TensorProto.FLOAT16}


def outcome(body: str, directory: Path, **more: str) -> ConversionOutcome:
    return converted(body, FP16, directory, **more)  # type: ignore[arg-type]


def test_the_report_holds_it_to_the_roundoff_of_float16_and_every_weight_to_its_cast(tmp_path: Path) -> None:
    report = outcome("        return torch.relu(self.last(x))", tmp_path).report
    assert report.verification.verdict in (Verdict.passed, Verdict.pass_with_notes), report.verification.findings
    assert report.verification.gate.u == 2.0**-11
    assert report.verification.ledger is not None
    assert {entry.ledger_class for entry in report.verification.ledger.entries} <= {"cast", "folded"}
    assert report.verification.worst_ratio is not None
    assert 0 < report.verification.worst_ratio < 1
    assert report.export.template is not None
    assert report.export.template.state == "built"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("        return torch.tanh(self.last(x) * 1e5 / 1e5)", "values up to"),
    ],
)
def test_what_float16_cannot_hold_stays_in_float32_and_is_named(body: str, why: str, tmp_path: Path) -> None:
    report = outcome(body, tmp_path).report
    assert report.verification.verdict in (Verdict.passed, Verdict.pass_with_notes), report.verification.findings
    (told,) = [warning for warning in report.export.warnings if warning.startswith("fp16:")]
    assert why in told
