"""Equal weights give equal files, however they were stored, named or laid out in memory."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.targets.onnx.writing.build import build_template
from app.targets.onnx.writing.fill import write_onnx
from tests.targets.capturing import ConvNet, capture_onnx, train_a_little
from tests.targets.conftest import TemplateOf


def from_zip(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    torch.save(state, path)
    return torch.load(path, mmap=True)


def from_legacy(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return torch.load(path)


def from_safetensors(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    save_file({f"module.{key}": tensor for key, tensor in reversed(state.items())}, path)
    return {key.removeprefix("module."): tensor for key, tensor in load_file(path).items()}


def in_another_memory_order(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    return {key: tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor for key, tensor in state.items()}


@pytest.mark.parametrize("stored", [from_zip, from_legacy, from_safetensors, in_another_memory_order])
@pytest.mark.parametrize("external", [False, True])
def test_equal_weights_give_equal_bytes(stored, external: bool, template_of: TemplateOf, tmp_path: Path) -> None:
    state = train_a_little(ConvNet(), 2).state_dict()
    first = write_onnx(template_of(ConvNet), state, tmp_path / "first.onnx", external_data=external)
    loaded = stored(state, tmp_path / "stored")
    second = write_onnx(template_of(ConvNet), loaded, tmp_path / "second.onnx", external_data=external)
    assert second.sha256 == first.sha256
    assert (second.data and second.data.sha256) == (first.data and first.data.sha256)
    other = write_onnx(
        template_of(ConvNet), train_a_little(ConvNet(), 3).state_dict(), tmp_path / "other.onnx", external_data=external
    )
    assert external or other.sha256 != first.sha256


def test_a_template_does_not_depend_on_the_weights_it_was_made_with(template_of: TemplateOf, tmp_path: Path) -> None:
    net = capture_onnx(train_a_little(ConvNet(), 9))
    build_template(net.captured, net.module, tmp_path / "template")
    assert (tmp_path / "template").read_bytes() == template_of(ConvNet).path.read_bytes()
