"""An artifact written from a template with other weights computes what eager computes with them, in every reader."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
import torchvision
from torch import nn

from app.domain.architecture import InputSpec
from app.targets.onnx.writing.build import build_template
from app.targets.onnx.writing.fill import write_onnx
from app.targets.onnx.writing.layout import ALIGNMENT, EXTERNAL_DATA_NAME, EXTERNAL_THRESHOLD
from app.targets.onnx.writing.template import OnnxTemplate, load_onnx_template
from tests.targets.capturing import (
    SPECS,
    Attention,
    ConvNet,
    Recurrent,
    Tied,
    capture_onnx,
    draw,
    train_a_little,
)
from tests.targets.conftest import TemplateOf

KINDS = [ConvNet, Attention, Recurrent, Tied]


def assert_agrees(artifact: Path, module: nn.Module, spec: InputSpec) -> None:
    inputs = draw(spec, batch=3, seed=5)
    with torch.inference_mode():
        expected = module(inputs).numpy()
    session = onnxruntime.InferenceSession(artifact)
    (actual,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    assert np.abs(expected).max() > 0.1
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def fill(template: OnnxTemplate, kind: type[nn.Module], path: Path, **options: bool) -> nn.Module:
    module = train_a_little(kind(), 2)
    write_onnx(template, module.state_dict(), path, module=module, **options)
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_give_what_eager_gives(kind: type[nn.Module], template_of: TemplateOf, tmp_path: Path) -> None:
    module = fill(template_of(kind), kind, tmp_path / "model.onnx")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    assert_agrees(tmp_path / "model.onnx", module, SPECS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_give_what_eager_gives_with_external_data(
    kind: type[nn.Module], template_of: TemplateOf, tmp_path: Path
) -> None:
    module = fill(template_of(kind), kind, tmp_path / "model.onnx", external_data=True)
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    assert_agrees(tmp_path / "model.onnx", module, SPECS[kind])


def test_resnet18_runs_exactly_with_weights_it_was_not_exported_with(tmp_path: Path) -> None:
    spec = InputSpec(name="x", shape=("batch", 3, 64, 64))
    net = capture_onnx(train_a_little(torchvision.models.resnet18(), 1), spec)
    build_template(net.captured, net.module, tmp_path / "template")
    assert (tmp_path / "template").stat().st_size < 100_000
    module = train_a_little(net.module, 2)
    write_onnx(load_onnx_template(tmp_path / "template"), module.state_dict(), tmp_path / "model.onnx")
    assert_agrees(tmp_path / "model.onnx", module, spec)


def test_traced_graph_serves_as_well(tmp_path: Path) -> None:
    net = capture_onnx(train_a_little(ConvNet(), 1), exporter="torchscript")
    template = build_template(net.captured, net.module, tmp_path / "template", request=net.request)
    assert template.exporter == "torchscript"
    module = fill(template, ConvNet, tmp_path / "model.onnx")
    assert_agrees(tmp_path / "model.onnx", module, SPECS[ConvNet])


def test_files_are_spelled_as_a_protobuf_library_spells_them(template_of: TemplateOf, tmp_path: Path) -> None:
    for external in (False, True):
        fill(template_of(ConvNet), ConvNet, tmp_path / "model.onnx", external_data=external)
        model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
        assert model.SerializeToString(deterministic=True) == (tmp_path / "model.onnx").read_bytes()


def test_onnx_ir_reads_the_uploaded_tensors_under_their_names(template_of: TemplateOf, tmp_path: Path) -> None:
    module = fill(template_of(ConvNet), ConvNet, tmp_path / "model.onnx")
    initializers = onnx_ir.load(tmp_path / "model.onnx").graph.initializers
    for key in ("conv.weight", "bn.running_mean", "fc.bias"):
        tensor = initializers[key].const_value
        assert tensor is not None
        assert np.array_equal(tensor.numpy(), module.state_dict()[key].numpy())


def test_no_paths_or_metadata_are_written(template_of: TemplateOf) -> None:
    graph = onnx.ModelProto.FromString(template_of(ConvNet).graph_without_weights())
    assert not graph.metadata_props
    assert all(not node.metadata_props and not node.doc_string for node in graph.graph.node)
    assert str(Path(torch.__file__).parent).encode() not in template_of(ConvNet).path.read_bytes()


def test_weights_that_no_output_depends_on_are_left_out_and_recorded(template_of: TemplateOf, tmp_path: Path) -> None:
    template = template_of(ConvNet)
    assert set(template.weights.unreached) == {"aux.weight", "aux.bias", "bn.num_batches_tracked"}
    fill(template, ConvNet, tmp_path / "model.onnx")
    names = {tensor.name for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert not names & template.weights.unreached.keys()


def test_tied_weights_are_stored_once(template_of: TemplateOf, tmp_path: Path) -> None:
    template = template_of(Tied)
    assert len(template.weights.tied) == 1
    fill(template, Tied, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size < 2048 * 64 * 4 + 64 * 64 * 4 + 10_000


def test_external_data_lies_aligned_in_one_plainly_named_file(template_of: TemplateOf, tmp_path: Path) -> None:
    fill(template_of(Tied), Tied, tmp_path / "other name.onnx", external_data=True)
    model = onnx.load(tmp_path / "other name.onnx", load_external_data=False)
    assert {path.name for path in tmp_path.iterdir()} == {"other name.onnx", EXTERNAL_DATA_NAME}
    outside = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert outside
    for tensor in outside:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert entries["location"] == EXTERNAL_DATA_NAME
        assert int(entries["offset"]) % ALIGNMENT == 0
        assert int(entries["length"]) >= EXTERNAL_THRESHOLD


def test_a_template_holds_no_weights(template_of: TemplateOf) -> None:
    module = train_a_little(Tied(), 1)
    content = template_of(Tied).path.read_bytes()
    for tensor in module.state_dict().values():
        assert tensor.numpy().tobytes()[:64] not in content
    assert len(content) < 20_000
