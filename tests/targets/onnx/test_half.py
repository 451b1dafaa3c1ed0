"""precision=fp16: half the bytes, inputs and outputs as they were or as asked, its own gate, and what stays named."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from app.conversion.job import BuiltTemplate, ConversionOutcome, TemplateSource
from app.conversion.verification.io_dtypes import Narrow
from app.domain.architecture import InputSpec
from app.domain.report import Verdict
from app.targets.artifact import ArtifactRefused
from app.targets.onnx.reading.runtime import OnnxRuntime
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.writer import WRITER
from tests.conversion.test_production import kept
from tests.conversion.verification.conversions import converted
from tests.conversion.verification.test_selfcheck import check, write_manifest
from tests.targets.capturing import Attention, ConvNet, Recurrent, Tied, draw, request_for, train_a_little

FP16 = OnnxOptions(precision="fp16")
ALL_HALF = OnnxOptions(precision="fp16", keep_io_types=False)


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


def _io_types(path: Path) -> list[int]:
    graph = onnx.load(path).graph
    return [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]


@pytest.mark.parametrize("kind", [ConvNet, Attention, Tied])
def test_inputs_and_outputs_are_halved_where_that_is_asked(kind: type[nn.Module], tmp_path: Path) -> None:
    request = request_for(train_a_little(kind(), 1), options=ALL_HALF)
    template = WRITER.build_template(WRITER.capture(request, "dynamo"), request, tmp_path / "template")
    written = WRITER.fill(template, request.module.state_dict(), request, tmp_path / "half.onnx")
    onnx.checker.check_model(str(written.path), full_check=True)
    types = _io_types(written.path)
    assert TensorProto.FLOAT16 in types
    assert TensorProto.FLOAT not in types
    x = draw(request.signature.inputs[0], 3)
    with torch.inference_mode():
        expected = request.module(x)
    (given,) = OnnxRuntime(written.path).run({"x": x.half() if x.is_floating_point() else x}).values()
    assert given.dtype == torch.float16
    assert 0 < float((given.float() - expected).abs().max()) < 0.02 * float(expected.abs().max())


@pytest.mark.parametrize(
    "body",
    [
        "        return torch.relu(self.last(x))",
        "        return x, self.last(x), x.argmax(1), self.last.bias * 2",
        "        return torch.tanh(self.last(x) * 1e5 / 1e5)",
    ],
    ids=["one", "inputs, integers and constants beside", "computed in float32"],
)
def test_the_contract_of_a_file_in_float16_throughout_says_so_everywhere(body: str, tmp_path: Path) -> None:
    outputs = 4 if "argmax" in body else 1
    names = tuple(f"y{number}" for number in range(outputs))
    found = converted(body, ALL_HALF.model_copy(update={"output_names": names}), tmp_path, outputs=outputs)
    report = found.report
    assert report.verification.verdict in (Verdict.passed, Verdict.pass_with_notes), report.verification.findings
    assert report.export.io_dtype == "float16"
    assert report.signature is not None
    assert [spec.dtype for spec in report.signature.inputs] == ["float16"]
    path = tmp_path / "work" / report.artifact.filename
    assert set(_io_types(path)) <= {TensorProto.FLOAT16, TensorProto.INT64}
    properties = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert json.loads(properties["recast.inputs"])[0]["dtype"] == "float16"
    with np.load(tmp_path / "work" / "golden.npz") as golden:
        assert golden["input/x"].dtype == np.float16
    write_manifest(tmp_path / "work", {file.filename: file.role for file in found.files})
    checked = check(tmp_path / "work")
    assert checked.returncode == 0, checked.stdout


def test_a_file_that_kept_its_types_is_no_answer_to_who_asked_for_float16(tmp_path: Path) -> None:
    path = tmp_path / "kept.onnx"
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        "kept",
        [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch"])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    runner = Narrow(OnnxRuntime(path), "float16")
    with pytest.raises(ArtifactRefused, match="gives float32"):
        runner.run({"x": torch.ones(2)})


def test_a_client_may_send_its_own_probes_in_the_types_of_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "probes.npz", x=np.full((2, 6), 0.5, np.float16))
    found = converted("        return self.last(x)", ALL_HALF, tmp_path, probes=tmp_path / "probes.npz")
    assert any(probe.probe.startswith("client") for probe in found.report.verification.probes)


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


class Scaled(nn.Module):
    """Three layers whose scales cancel."""

    def __init__(self, first: float = 1.0, second: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second, self.last = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        with torch.no_grad():
            for layer, factor in ((self.first, first), (self.second, second), (self.last, 1 / (first * second))):
                layer.weight.mul_(factor)
            self.first.bias.mul_(first)
            self.second.bias.mul_(first * second)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.second(self.first(x)))
        return result


SCALED = """        h = self.second(self.first(x))
        return self.last(h)
"""
SCALED_LAYERS = "self.first, self.second, self.last = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)"


def scaled(directory: Path, factors: tuple[float, float], templates: TemplateSource | None = None) -> ConversionOutcome:
    directory.mkdir()
    weights = Scaled(*factors)
    return converted(SCALED, FP16, directory, layers=SCALED_LAYERS, weights=weights, templates=templates)


@pytest.mark.parametrize(
    ("factors", "why"),
    [((1.0, 1e6), "weights up to"), ((1e-6, 1e3), "weights of at most"), ((1e6, 1.0), "up to")],
)
def test_weights_that_float16_cannot_hold_stay_in_float32_and_are_named(
    factors: tuple[float, float], why: str, tmp_path: Path
) -> None:
    report = scaled(tmp_path / "conversion", factors).report
    assert report.verification.verdict in (Verdict.passed, Verdict.pass_with_notes), report.verification.findings
    (told,) = [warning for warning in report.export.warnings if warning.startswith("fp16:")]
    assert why in told


def test_what_one_checkpoint_keeps_in_float32_is_kept_of_no_other(tmp_path: Path) -> None:
    large = scaled(tmp_path / "large", (1e6, 1.0))
    assert large.template is None
    assert large.report.export.template is not None
    assert large.report.export.template.state == "not_reusable"
    usual = scaled(tmp_path / "usual", (1.0, 1.0))
    assert isinstance(usual.template, BuiltTemplate)
    assert not [warning for warning in usual.report.export.warnings if warning.startswith("fp16:")]

    later = scaled(tmp_path / "later", (1e6, 1.0), kept(usual))
    assert later.report.verification.verdict in (Verdict.passed, Verdict.pass_with_notes)
    assert later.discarded_template is None
    again = scaled(tmp_path / "again", (1.5, 1.0), kept(usual))
    assert again.report.export.template is not None
    assert again.report.export.template.state == "reused"
