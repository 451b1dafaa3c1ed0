"""The direct path: optimise with weights in place, and write."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from app.architectures.calling import call
from app.conversion.exporters import onnx_dynamo, onnx_file
from app.conversion.exporters.onnx_file import write
from app.conversion.exporters.optimise import optimise
from app.domain.conversion import OnnxOptions
from app.domain.errors import ExportFailed
from tests.conversion.exporters.nets import case


@pytest.mark.parametrize("external", ["auto", False, True])
def test_the_optimised_file_runs_and_agrees(external: bool | str, tmp_path: Path) -> None:
    request = case("conv_bn").request(OnnxOptions())
    write(optimise(onnx_dynamo.capture(request).model), tmp_path / "model.onnx", external)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    image = torch.randn(3, 3, 8, 8)
    expected = call(request.module, request.signature, {"image": image})["output"]
    assert np.abs(session.run(None, {"image": image.numpy()})[0] - expected.numpy()).max() < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["model.onnx", "model.onnx.data"] if external is True else ["model.onnx"]
    )


def test_external_data_is_named_without_folders(tmp_path: Path) -> None:
    write(onnx_dynamo.capture(case("conv_bn").request(OnnxOptions())).model, tmp_path / "model.onnx", True)
    proto = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    locations = {e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location"}
    assert locations == {"model.onnx.data"}


def test_one_file_is_refused_where_protobuf_cannot_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "SINGLE_FILE_LIMIT", 100)
    model = onnx_dynamo.capture(case("conv_bn").request(OnnxOptions())).model
    with pytest.raises(ExportFailed, match="100"):
        write(model, tmp_path / "model.onnx", False)
    write(model, tmp_path / "model.onnx", "auto")
    assert (tmp_path / "model.onnx.data").exists()
