"""Clean state dicts: under the architecture's keys, read by the format's own library, exact in the ledger."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_model
from torch import nn

from app.architectures.calling import EagerModel
from app.targets.artifact import MalformedFile
from app.targets.safetensors.reading.reader import READER
from app.targets.safetensors.spec import SafetensorsOptions
from app.targets.safetensors.writing.writer import WRITER
from tests.targets.capturing import ConvNet, Tied, draw, request_for, train_a_little


def written(kind: type[nn.Module], directory: Path) -> tuple[Path, nn.Module]:
    first = request_for(train_a_little(kind(), 1), options=SafetensorsOptions())
    WRITER.build_template(WRITER.capture(first, "state_dict"), first, directory / "template")
    template = WRITER.load_template(directory / "template")
    request = request_for(train_a_little(kind(), 2), options=SafetensorsOptions())
    file = WRITER.fill(template, request.module.state_dict(), request, directory / "model.safetensors")
    assert WRITER.is_filled(template, file)
    return file.path, request.module


@pytest.mark.parametrize("kind", [ConvNet, Tied])
def test_the_formats_own_library_loads_it_strictly(kind: type[nn.Module], tmp_path: Path) -> None:
    path, module = written(kind, tmp_path)
    fresh = kind()
    assert load_model(fresh, path, strict=True) == (set(), [])
    for key, value in module.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key


def test_a_tied_parameter_is_stored_once(tmp_path: Path) -> None:
    path, module = written(Tied, tmp_path)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {"embedding.weight", "mix.weight", "mix.bias"}
        assert file.metadata() == {"format": "pt", "head.weight": "embedding.weight"}
    assert path.stat().st_size < 1.1 * sum(parameter.nbytes for parameter in module.parameters())


def test_the_runner_computes_with_the_tensors_of_the_file(tmp_path: Path) -> None:
    path, module = written(ConvNet, tmp_path)
    request = request_for(ConvNet(), options=SafetensorsOptions())
    x = draw(request.signature.inputs[0], 2)
    with torch.inference_mode():
        expected = module(x)
    given = READER.open(path, EagerModel(ConvNet().eval(), request.signature), threads=1).run({"x": x})
    torch.testing.assert_close(*given.values(), expected, rtol=0, atol=0)


def test_a_file_that_is_cut_off_or_longer_is_malformed(tmp_path: Path) -> None:
    path, _ = written(ConvNet, tmp_path)
    content = path.read_bytes()
    for damaged in (content[:-1], content + b"\0", content[:7], b"\xff" * 16):
        path.write_bytes(damaged)
        with pytest.raises(MalformedFile):
            READER.tensors(path)
