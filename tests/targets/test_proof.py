"""Certified mode's proof sees every byte that is not a weight."""

from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from app.targets.onnx.writing.fill import write_onnx
from app.targets.onnx.writing.layout import EXTERNAL_DATA_NAME, lay_out, same_graph
from app.targets.templating.pieces import SlotData, piece_length
from app.targets.torchscript.writing.template import build_template
from tests.targets.capturing import Attention, ConvNet, capture_torchscript, train_a_little
from tests.targets.conftest import TemplateOf


def test_filled_files_are_recognised_whatever_fills_them(template_of: TemplateOf, tmp_path: Path) -> None:
    for seed in (2, 3):
        for external in (False, True):
            state = train_a_little(ConvNet(), seed).state_dict()
            write_onnx(template_of(ConvNet), state, tmp_path / "model.onnx", external_data=external)
            assert same_graph(template_of(ConvNet), tmp_path / "model.onnx")


def test_any_changed_byte_outside_the_weights_is_seen(template_of: TemplateOf, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(template_of(ConvNet), train_a_little(ConvNet(), 2).state_dict(), path)
    content = bytearray(path.read_bytes())
    position = 0
    for piece in lay_out(template_of(ConvNet), external=False).main:
        end = position + piece_length(piece)
        for changed in {position, (position + end) // 2, end - 1}:
            content[changed] ^= 1
            path.write_bytes(content)
            assert same_graph(template_of(ConvNet), path) == isinstance(piece, SlotData)
            content[changed] ^= 1
        position = end


@pytest.mark.parametrize("change", [lambda content: content + b"\0", lambda content: content[:-1], lambda content: b""])
def test_a_longer_or_shorter_file_is_seen(change, template_of: TemplateOf, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for external, changed in ((False, path), (True, path), (True, tmp_path / EXTERNAL_DATA_NAME)):
        write_onnx(template_of(ConvNet), train_a_little(ConvNet(), 2).state_dict(), path, external_data=external)
        changed.write_bytes(change(changed.read_bytes()))
        assert not same_graph(template_of(ConvNet), path)


def test_a_missing_file_is_no_proof(template_of: TemplateOf, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert not same_graph(template_of(ConvNet), path)
    write_onnx(template_of(ConvNet), train_a_little(ConvNet(), 2).state_dict(), path, external_data=True)
    (tmp_path / EXTERNAL_DATA_NAME).unlink()
    assert not same_graph(template_of(ConvNet), path)


def test_the_same_model_with_one_more_initializer_is_another_graph(template_of: TemplateOf, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    state = train_a_little(ConvNet(), 2).state_dict()
    write_onnx(template_of(ConvNet), state, path)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(state["aux.weight"].numpy(), "aux.weight"))
    onnx.save(model, path)
    assert not same_graph(template_of(ConvNet), path)


def test_an_archive_is_proved_with_its_checksums(tmp_path: Path) -> None:
    request, captured = capture_torchscript(train_a_little(Attention(), 1))
    template = build_template(captured, request, tmp_path / "template")
    path = tmp_path / "model.pt"
    template.fill(train_a_little(Attention(), 2).state_dict(), path)
    assert template.same(path)
    content = bytearray(path.read_bytes())
    for changed in range(0, len(content), len(content) // 97):
        content[changed] ^= 1
        path.write_bytes(content)
        assert not template.same(path)
        content[changed] ^= 1
