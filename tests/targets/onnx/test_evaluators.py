"""Runtimes beside onnxruntime: each by itself computes what the model computes, or says why it does not."""

import sys
from pathlib import Path

import onnx
import pytest
import torch

from app.targets.artifact import ArtifactRefused
from app.targets.onnx.reading.evaluators import TractEvaluator
from app.targets.onnx.reading.reader import READER
from app.targets.onnx.writing.writer import WRITER
from tests.targets.capturing import Attention, ConvNet, Tied, draw, request_for, train_a_little


@pytest.fixture(params=[ConvNet, Attention, Tied])
def case(request: pytest.FixtureRequest, tmp_path: Path):
    asked = request_for(train_a_little(request.param(), 1))
    template = WRITER.build_template(WRITER.capture(asked, "dynamo"), asked, tmp_path / "template")
    WRITER.fill(template, asked.module.state_dict(), asked, tmp_path / "model.onnx")
    return tmp_path / "model.onnx", asked


def test_each_computes_what_the_model_computes(case) -> None:
    path, request = case
    x = draw(request.signature.inputs[0], 3)
    with torch.inference_mode():
        expected = request.module(x)
    assert {evaluator.name for evaluator in READER.evaluators} == {"onnx reference evaluator", "tract"}
    for evaluator in READER.evaluators:
        torch.testing.assert_close(*evaluator.run(path, {"x": x}).values(), expected, rtol=1e-4, atol=1e-5)


def test_an_operator_that_tract_lacks_is_told_and_ends_nothing(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 2])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 2])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Frobnicate", ["x"], ["y"])], "g", [value], [result])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "strange.onnx")
    with pytest.raises(ArtifactRefused, match="Frobnicate"):
        TractEvaluator().run(tmp_path / "strange.onnx", {"x": torch.zeros(2, 2)})


def test_where_tract_is_not_installed_its_column_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tract", None)
    with pytest.raises(ArtifactRefused, match=r'pip install "recast-service\[tract\]"'):
        TractEvaluator().run(Path("unread.onnx"), {})
