"""An artifact written from a template with other weights computes what eager computes with them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torchvision

from app.conversion.templates.onnx_build import build_template
from app.conversion.templates.onnx_template import load_onnx_template
from app.conversion.templates.onnx_write import write_onnx
from tests.conversion.templates.capturing import capture, train_a_little


def test_resnet18_runs_exactly_with_weights_it_was_not_exported_with(tmp_path: Path) -> None:
    module = train_a_little(torchvision.models.resnet18(), 1)
    captured = capture(module, {"x": torch.randn(2, 3, 64, 64)}, {"x": {0: "batch"}})
    build_template(captured, module, tmp_path / "template")
    template = load_onnx_template(tmp_path / "template")
    assert (tmp_path / "template").stat().st_size < 100_000

    train_a_little(module, 2)
    written = write_onnx(template, module.state_dict(), tmp_path / "model.onnx")
    onnx.checker.check_model(written.path, full_check=True)
    inputs = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        expected = module(inputs).numpy()
    (actual,) = onnxruntime.InferenceSession(written.path).run(None, {"x": inputs.numpy()})
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
