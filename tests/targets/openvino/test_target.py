"""OpenVINO's graphs: derived without weights, filled beside them, and run in float32 by OpenVINO itself."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.domain.errors import TargetNotInstalled, TemplateMismatch
from app.targets.artifact import ArtifactRefused, MalformedFile
from app.targets.openvino.library import openvino
from app.targets.openvino.reading.reader import READER
from app.targets.openvino.spec import SPEC, OpenVinoOptions
from app.targets.openvino.writing.template import OpenVinoTemplate
from app.targets.openvino.writing.writer import WRITER
from app.targets.request import ExportRequest
from app.targets.spec import _is_installed
from app.targets.specs import SPECS, installed
from app.targets.writer import writer_of
from tests.domain.test_catalog import entry
from tests.targets.capturing import Attention, ConvNet, Recurrent, Tied, draw, request_for, train_a_little

KINDS = [ConvNet, Attention, Recurrent, Tied]


def request_of(module: nn.Module) -> ExportRequest:
    options: Any = OpenVinoOptions()
    return request_for(module, options=options)


def template_of(request: ExportRequest, directory: Path) -> OpenVinoTemplate:
    built = WRITER.build_template(WRITER.capture(request, "dynamo"), request, directory / "template")
    assert built.against_reuse is None
    return WRITER.load_template(directory / "template")


def written(kind: type[nn.Module], directory: Path, **facts: str) -> tuple[Path, OpenVinoTemplate, ExportRequest]:
    """An artifact of other weights than those that the graph was captured with."""
    request = replace(request_of(train_a_little(kind(), 2)), facts=facts)
    template = WRITER.for_request(template_of(request_of(train_a_little(kind(), 1)), directory), request)
    file = WRITER.fill(template, request.module.state_dict(), request, directory / "model.xml")
    assert file.data is not None
    assert file.data.path == directory / "model.bin"
    assert WRITER.is_filled(template, file)
    return file.path, template, request


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_and_another_batch_compute_what_the_model_computes(kind: type[nn.Module], tmp_path: Path) -> None:
    path, _, request = written(kind, tmp_path)
    runner = READER.open(path, request, threads=1)
    for batch in (1, 3):
        x = draw(request.signature.inputs[0], batch)
        with torch.inference_mode():
            torch.testing.assert_close(*runner.run({"x": x}).values(), request.module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_constant_on_disk_is_what_is_claimed_of_its_place(kind: type[nn.Module], tmp_path: Path) -> None:
    path, template, request = written(kind, tmp_path)
    claims, places = WRITER.claims(template), []
    state = request.module.state_dict()
    for stored in READER.tensors(path):
        for place in (stored.name, *stored.aliases):
            places.append(place)
            claim = claims[place]
            if claim.evaluate is not None:
                value: Tensor = claim.evaluate(state.__getitem__)
                assert (value.dtype, tuple(value.shape)) == (stored.dtype, stored.dims)
                assert value.contiguous().view(-1).view(torch.uint8).numpy().tobytes() == stored.data.tobytes()
    assert sorted(places) == sorted(claims)


def test_equal_weights_give_equal_bytes_whatever_the_process_made_before(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        path, *_ = written(Attention, tmp_path / name)
        contents.append((path.read_bytes(), path.with_suffix(".bin").read_bytes()))
    assert contents[0] == contents[1]


def test_the_graph_says_what_it_is_and_nothing_of_this_server(tmp_path: Path) -> None:
    path, *_ = written(ConvNet, tmp_path, **{"recast.architecture": "a/b", "licence": 'a <b> & "c" ≤ ü'})
    told = openvino().Core().read_model(str(path)).get_rt_info("recast").value
    assert json.loads(told) == {"recast.architecture": "a/b", "licence": 'a <b> & "c" ≤ ü'}
    assert str(tmp_path).encode() not in path.read_bytes()


def test_what_is_audited_is_read_from_the_file(tmp_path: Path) -> None:
    path, _, request = written(ConvNet, tmp_path)
    facts = READER.open(path, request, threads=1).facts()
    assert facts.constants is not None
    assert facts.constants.norms == (("batch_norm", pytest.approx(1e-5)),)
    assert facts.axes == {"x": ("?", 3, 8, 8)}


def test_it_computes_in_float32_where_the_processor_would_rather_not(tmp_path: Path) -> None:
    path, _, request = written(ConvNet, tmp_path)
    runner = READER.open(path, request, threads=1)
    assert runner._compiled.get_property("INFERENCE_PRECISION_HINT") == openvino().Type.f32


def test_nothing_of_its_telemetry_is_imported(tmp_path: Path) -> None:
    written(ConvNet, tmp_path)
    assert sys.modules["openvino_telemetry"] is None


def test_a_damaged_or_hidden_byte_of_the_constants_is_found(tmp_path: Path) -> None:
    path, template, request = written(ConvNet, tmp_path)
    data = path.with_suffix(".bin")
    content = data.read_bytes()
    for damaged in (content[:-1], content + b"\1", b""):
        data.write_bytes(damaged)
        with pytest.raises(MalformedFile):
            READER.tensors(path)
        with pytest.raises(ArtifactRefused):
            READER.open(path, request, threads=1)
    data.write_bytes(content)
    path.write_bytes(path.read_bytes().replace(b"<net", b'<!DOCTYPE net [<!ENTITY a "b">]><net', 1))
    with pytest.raises(MalformedFile):
        READER.tensors(path)
    assert not template.same(path)


def test_weights_of_another_form_do_not_fill_it(tmp_path: Path) -> None:
    _, template, request = written(ConvNet, tmp_path)
    state = {**request.module.state_dict(), "fc.bias": torch.zeros(7)}
    with pytest.raises(TemplateMismatch):
        WRITER.fill(template, state, request, tmp_path / "other.xml")
    assert not (tmp_path / "other.bin").exists()


def test_where_it_is_not_installed_everything_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SPEC.installing is None
    assert "openvino" in installed(entry("a/b", "c")).targets
    monkeypatch.setitem(sys.modules, "openvino", None)  # import openvino fails as where it is missing
    monkeypatch.setattr("app.targets.spec._is_installed", _is_installed.__wrapped__)  # which is asked once otherwise
    command = 'pip install "recast-service[openvino]"'
    described = installed(entry("a/b", "c"))
    assert described.lacking == {"openvino": command}
    assert described.targets == tuple(name for name in SPECS if name != "openvino")
    with pytest.raises(TargetNotInstalled) as refusal:
        writer_of("openvino")
    assert command in (refusal.value.problem().hint or "")
