"""Both ONNX exporters on small real networks, run by onnxruntime at other sizes than those exported with."""

import logging
import sys
import warnings
from contextlib import suppress
from functools import cache
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.onnx._internal.exporter import _registration

from app.architectures.calling import call
from app.architectures.sample import sample_inputs
from app.domain.architecture import InputSpec, Signature
from app.domain.errors import ExportFailed, InvalidOptions, StaticAxis, UnsupportedOpset
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing import dynamo_exporter as onnx_dynamo
from app.targets.onnx.writing import torchscript_exporter as onnx_torchscript
from app.targets.onnx.writing.captured import CapturedOnnx
from app.targets.request import ExportRequest
from tests.targets.nets import Case, case

EXPORTERS = pytest.mark.parametrize("exporter", [onnx_dynamo, onnx_torchscript], ids=["dynamo", "torchscript"])


@cache
def default_capture(exporter: ModuleType, kind: str) -> tuple[ExportRequest, CapturedOnnx]:
    """A capture with default options, made once for all tests that only read it."""
    request = case(kind).request(OnnxOptions())
    return request, exporter.capture(request)


def serialized(captured: CapturedOnnx) -> bytes:
    return ir.to_proto(captured.model).SerializeToString()


def worst_error(captured: CapturedOnnx, request: ExportRequest, sizes: dict[str, int], seed: int = 1) -> float:
    """max|onnxruntime - eager| over all outputs, at these sizes of the symbolic axes."""
    inputs = sample_inputs(request.signature, sizes, torch.Generator().manual_seed(seed))
    expected = call(request, inputs)
    session = onnxruntime.InferenceSession(serialized(captured), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(expected)
    got = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(got, expected.values(), strict=True))


@EXPORTERS
@pytest.mark.parametrize(
    "kind", ["conv_bn", "lstm", "two_inputs", "tied", "dataclass", "attention", "biased_attention"]
)
def test_captured_graph_computes_what_the_module_computes_at_other_sizes(exporter: ModuleType, kind: str) -> None:
    request, captured = default_capture(exporter, kind)
    for sizes in ({}, {"batch": 1}, {"batch": 5, "length": 3}):
        assert worst_error(captured, request, sizes) < 1e-5


@EXPORTERS
@pytest.mark.parametrize("kind", ["conv_bn", "lstm", "two_inputs"])
def test_every_weight_is_an_initializer_under_its_state_dict_key_and_unchanged(exporter: ModuleType, kind: str) -> None:
    request, captured = default_capture(exporter, kind)
    initializers = captured.model.graph.initializers
    state = {k: v for k, v in request.module.state_dict().items() if not k.endswith("num_batches_tracked")}
    for key, tensor in state.items():
        value = initializers[key].const_value
        assert value is not None
        assert np.array_equal(value.numpy(), tensor.numpy())


@EXPORTERS
def test_batch_norm_is_not_folded(exporter: ModuleType) -> None:
    model = default_capture(exporter, "conv_bn")[1].model
    assert "BatchNormalization" in {node.op_type for node in model.graph}


@EXPORTERS
def test_weights_are_not_copied(exporter: ModuleType) -> None:
    request, captured = default_capture(exporter, "conv_bn")
    value = captured.model.graph.initializers["conv.weight"].const_value
    assert value is not None
    assert value.numpy().ctypes.data == request.module.state_dict()["conv.weight"].data_ptr()


@EXPORTERS
def test_tied_weights_are_one_initializer(exporter: ModuleType) -> None:
    initializers = default_capture(exporter, "tied")[1].model.graph.initializers
    assert len({"embedding.weight", "decoder.weight"} & set(initializers)) == 1


@EXPORTERS
@pytest.mark.parametrize("opset", [17, 21])
def test_the_opset_asked_for_is_the_opset_in_the_file(exporter: ModuleType, opset: int) -> None:
    request = case("conv_bn").request(OnnxOptions(opset=opset))
    captured = exporter.capture(request)
    proto = onnx.load_from_string(serialized(captured))
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == opset
    assert worst_error(captured, request, {"batch": 3}) < 1e-5


@EXPORTERS
@pytest.mark.parametrize("opset", [-(2**31) + 1, -1, 0, 6, 24, 65, 2**31 - 1])
def test_an_opset_out_of_range_is_refused_with_the_range(exporter: ModuleType, opset: int) -> None:
    with pytest.raises(UnsupportedOpset) as refused:
        exporter.capture(case("conv_bn").request(OnnxOptions(opset=opset)))
    assert refused.value.extra["lowest_opset"] == 7


def test_an_opset_that_cannot_be_reached_names_the_lowest_that_can() -> None:
    with pytest.raises(UnsupportedOpset) as refused:
        onnx_dynamo.capture(case("lstm").request(OnnxOptions(opset=9)))
    lowest = refused.value.extra["lowest_opset"]
    assert 9 < lowest <= 18
    request = case("lstm").request(OnnxOptions(opset=lowest))
    assert worst_error(onnx_dynamo.capture(request), request, {"batch": 3}) < 1e-5


class Warped(nn.Module):
    """``sampled``: by an operator that opset 20 brought; else by one that the exporter has in no opset."""

    def __init__(self, *, sampled: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.sampled = sampled

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.linear(x)
        return F.affine_grid(h[:, :2], [2, 1, 4, 4], align_corners=False) if self.sampled else h.rot90(1, (1, 2))


def test_only_an_operator_that_a_newer_opset_has_is_told_as_one() -> None:
    signature = Signature(inputs=(InputSpec(name="x", shape=(2, 3, 3)),), axes=())
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    with pytest.raises(UnsupportedOpset) as newer:
        onnx_torchscript.capture(ExportRequest(Warped(sampled=True).eval(), signature, OnnxOptions(), sample))
    assert newer.value.extra["lowest_opset"] == 20
    with pytest.raises(ExportFailed, match="opset version 18"):
        onnx_torchscript.capture(ExportRequest(Warped(sampled=False).eval(), signature, OnnxOptions(), sample))


@EXPORTERS
def test_the_ir_version_is_the_lowest_that_holds_the_opset_or_the_one_asked_for(exporter: ModuleType) -> None:
    assert default_capture(exporter, "conv_bn")[1].model.ir_version == 8
    assert exporter.capture(case("conv_bn").request(OnnxOptions(ir_version=9))).model.ir_version == 9
    with pytest.raises(InvalidOptions, match="IR version"):
        exporter.capture(case("conv_bn").request(OnnxOptions(ir_version=3)))


@EXPORTERS
def test_names_and_axes_are_those_asked_for(exporter: ModuleType) -> None:
    options = OnnxOptions(
        input_names=("features", "padding"),
        output_names=("a", "b", "c"),
        dynamic_axes={"features": {0: "N", 1: "T"}, "padding": {0: "N", 1: "T"}},
    )
    request = case("two_inputs").request(options)
    captured = exporter.capture(request)
    declared = {str(value.name): [str(dim) for dim in value.shape or ()] for value in captured.model.graph.inputs}
    assert declared == {"features": ["N", "T", "6"], "padding": ["N", "T"]}
    assert [value.name for value in captured.model.graph.outputs] == ["a", "b", "c"]
    assert worst_error(captured, request, {"N": 4, "T": 9}) < 1e-5


@EXPORTERS
def test_empty_dynamic_axes_make_everything_static(exporter: ModuleType) -> None:
    model = exporter.capture(case("conv_bn").request(OnnxOptions(dynamic_axes={}))).model
    assert [int(dim) for dim in model.graph.inputs[0].shape] == [2, 3, 8, 8]
    assert [int(dim) for dim in model.graph.outputs[0].shape] == [2, 5]


@EXPORTERS
def test_a_declared_output_size_never_is_a_sample_size_that_varies(exporter: ModuleType) -> None:
    model = default_capture(exporter, "lstm")[1].model
    assert [str(dim) for dim in model.graph.outputs[0].shape][1] != "7"


def test_an_axis_fixed_by_code_is_refused_by_the_dynamo_exporter() -> None:
    with pytest.raises(StaticAxis, match="static shape of 2"):
        onnx_dynamo.capture(case("batch_loop").request(OnnxOptions()))


def test_a_branch_on_values_is_refused_by_dynamo_and_kept_by_the_torchscript_exporter() -> None:
    request = case("branching").request(OnnxOptions())
    with pytest.raises(ExportFailed) as refused:
        onnx_dynamo.capture(request)
    assert "exporter=torchscript" in str(refused.value.told_hint)
    captured = onnx_torchscript.capture_scripted(request)
    assert captured.exporter == "torchscript-scripted"
    for seed in range(6):  # both sides of the branch
        assert worst_error(captured, request, {"batch": 1}, seed) < 1e-5


@EXPORTERS
def test_complex_numbers_fail_in_words(exporter: ModuleType) -> None:
    with pytest.raises(ExportFailed) as refused:
        exporter.capture(case("spectrum").request(OnnxOptions()))
    assert 10 < len(refused.value.detail) < 1500


@EXPORTERS
def test_an_input_named_like_a_weight_is_refused_with_the_way_out(exporter: ModuleType) -> None:
    net = case("conv_bn")
    with pytest.raises(InvalidOptions) as refused:
        exporter.capture(net.request(OnnxOptions(input_names=("conv.weight",))))
    assert "input_names" in str(refused.value.told_hint)


@EXPORTERS
def test_no_path_of_this_machine_is_in_the_file(exporter: ModuleType) -> None:
    content = serialized(default_capture(exporter, "conv_bn")[1])
    for trace in (b"/site-packages", b".py", str(sys.prefix).encode(), b"stack_trace", b"nets"):
        assert trace not in content


def test_debug_metadata_stays_when_asked_for() -> None:
    assert b"stack_trace" in serialized(onnx_dynamo.capture(case("conv_bn").request(OnnxOptions(keep_debug=True))))


@EXPORTERS
@pytest.mark.parametrize("kind", ["branching", "spectrum"])
def test_nothing_is_printed_and_nothing_of_the_process_changes(
    exporter: ModuleType, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (
        warnings.filters[:],
        logging.getLogger("torch.onnx").handlers[:],
        logging.getLogger("torch.onnx").propagate,
    )
    with suppress(ExportFailed):
        exporter.capture(case(kind).request(OnnxOptions()))
    assert capfd.readouterr().out == ""
    assert (
        warnings.filters[:],
        logging.getLogger("torch.onnx").handlers[:],
        logging.getLogger("torch.onnx").propagate,
    ) == before
    assert not torch.onnx.is_in_onnx_export()
    assert torch.is_grad_enabled()


@EXPORTERS
def test_a_module_in_training_mode_is_refused(exporter: ModuleType) -> None:
    request = case("conv_bn").request(OnnxOptions())
    request.module.bn.train()
    with pytest.raises(ExportFailed, match="bn"):
        exporter.capture(request)


@EXPORTERS
def test_the_same_module_gives_the_same_bytes(exporter: ModuleType) -> None:
    again = exporter.capture(case("conv_bn").request(OnnxOptions()))
    assert serialized(again) == serialized(default_capture(exporter, "conv_bn")[1])


def test_a_static_export_does_not_fix_the_length_of_the_next() -> None:
    net: Case = case("lstm")
    onnx_dynamo.capture(net.request(OnnxOptions(dynamic_axes={})))
    request = net.request(OnnxOptions())
    assert worst_error(onnx_dynamo.capture(request), request, {"length": 3}) < 1e-5


def test_the_library_of_operators_is_read_once_for_all_exports() -> None:
    default_capture(onnx_dynamo, "conv_bn")
    before = _registration.onnxscript_apis.get_torchlib_ops.cache_info()
    onnx_dynamo.capture(case("conv_bn").request(OnnxOptions()))
    now = _registration.onnxscript_apis.get_torchlib_ops.cache_info()
    assert (now.misses, now.hits) == (1, before.hits + 1)
