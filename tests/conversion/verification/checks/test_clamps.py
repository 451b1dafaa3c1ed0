"""Bounds of clamps that no probe reaches: another number in the artifact is seen by reading it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.conversion.verification.verify import verify
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import FEATURES, findings, onnx_subject, torchscript_subject

Clamp = Callable[[Tensor], Tensor]


class Clamped(nn.Module):
    """Normalised features, never far from 0, between bounds."""

    def __init__(self, clamp: Clamp) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.clamp = nn.Linear(6, 16), nn.LayerNorm(16), clamp
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.clamp(self.norm(self.first(x)))


def wide(x: Tensor) -> Tensor:
    return x.clamp(-9.0, 9.5)


def upper(x: Tensor) -> Tensor:
    return torch.clamp_max(x, 9)


def hard(x: Tensor) -> Tensor:
    return functional.hardtanh(x, -9.0, 9.0)


def in_place(x: Tensor) -> Tensor:
    return functional.hardtanh_(x * 1, -9.0, 9.0)


def by_tensor(x: Tensor) -> Tensor:
    return torch.clamp(x, max=torch.tensor(9.0))


CLAMPS = [wide, upper, hard, in_place, functional.relu6]


def other_bounds(model: onnx.ModelProto) -> None:
    """Clip at 8."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    tensor = stored[next(node for node in model.graph.node if node.op_type == "Clip").input[2]]
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(8, np.float32), tensor.name))


@pytest.mark.parametrize("clamp", [*CLAMPS, by_tensor, functional.normalize])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_faithful_clamps_pass(clamp: Clamp, exporter: str, tmp_path: Path) -> None:
    report = verify(onnx_subject(Clamped(clamp), FEATURES, tmp_path, exporter=exporter))
    assert report.verdict is Verdict.passed, report.findings


@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_another_bound_in_an_onnx_file_fails(clamp: Clamp, exporter: str, tmp_path: Path) -> None:
    report = verify(onnx_subject(Clamped(clamp), FEATURES, tmp_path, exporter=exporter, edit=other_bounds))
    assert Reason.attributes in findings(report)


@pytest.mark.parametrize("clamp", CLAMPS)
def test_another_bound_in_a_torchscript_file_fails(clamp: Clamp, tmp_path: Path) -> None:
    def other(x: Tensor) -> Tensor:
        return x.clamp(-9, 8) if clamp is wide else functional.hardtanh(x, 0.0, 8.0)

    honest = verify(torchscript_subject(Clamped(clamp), FEATURES, tmp_path))
    assert honest.verdict is Verdict.passed, honest.findings
    if clamp is not upper:
        report = verify(torchscript_subject(Clamped(clamp), FEATURES, tmp_path, of=Clamped(other)))
        assert Reason.attributes in findings(report)
