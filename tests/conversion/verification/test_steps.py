"""Outputs that jump where rounding decides: what lies on a step is no fault, what lies beside it is one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.verify import verify
from app.domain.architecture import InputSpec, OutputSpec, Signature, Uniform
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import BATCH, findings, onnx_subject


def pixels(low: float) -> Signature:
    """Numbers that are large beside their differences, which a convolution without a mean leaves."""
    values = Uniform(low=low, high=low + 1)
    return Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, 64, 64), distribution=values),),
        axes=(BATCH,),
        outputs=(OutputSpec(name="y"),),
    )


class Contrast(nn.Module):
    """Differences of neighbouring pixels; rounding decides of some whether they are positive."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 5, padding=2, padding_mode="reflect", bias=False)
        self.conv.weight.data -= self.conv.weight.data.mean((1, 2, 3), keepdim=True)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Segmenting(Contrast):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) > 0


class Rounding(Contrast):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(self.conv(x) * 1000) / 1000


@pytest.mark.parametrize(("module", "low"), [(Segmenting(), 1000), (Rounding(), 100)])
def test_what_lies_on_a_step_passes(module: nn.Module, low: float, tmp_path: Path) -> None:
    report = verify(onnx_subject(module, pixels(low), tmp_path))
    assert report.verdict in (Verdict.passed, Verdict.pass_with_notes), report.findings


def moved_threshold(model: onnx.ModelProto) -> None:
    """Half of the pixels between 0 and 0.001 change sides: as few as rounding moves."""
    for node in model.graph.node:
        if node.op_type == "Greater":
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.001), "threshold"))
            node.input[1] = "threshold"


def finer_thousandths(model: onnx.ModelProto) -> None:
    """One number in a few hundred moves to the next thousandth."""
    scale = next(node for node in model.graph.node if node.op_type == "Mul")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1000.1), "finer"))
    scale.input[1] = "finer"


@pytest.mark.parametrize(
    ("module", "low", "edit"), [(Segmenting(), 1000, moved_threshold), (Rounding(), 100, finer_thousandths)]
)
def test_what_lies_beside_a_step_fails(
    module: nn.Module, low: float, edit: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    report = verify(onnx_subject(module, pixels(low), tmp_path, edit=edit))
    assert report.verdict is Verdict.fail
    assert Reason.parity in findings(report)
