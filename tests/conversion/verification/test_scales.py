"""Outputs whose parts differ in scale: large numbers do not hide what is wrong with small ones."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.tolerance import small_parts
from app.conversion.verification.verify import Mode, verify
from app.domain.architecture import InputSpec, OutputSpec, Signature
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import BATCH, findings, onnx_subject

POINTS = Signature(
    inputs=(InputSpec(name="x", shape=("batch", 32, 6)),), axes=(BATCH,), outputs=(OutputSpec(name="y"),)
)


class Detector(nn.Module):
    """Boxes in pixels beside scores, along the last axis or the one before it."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last, self.boxes, self.scores = last, nn.Linear(6, 4), nn.Linear(6, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((640 * self.boxes(x).relu(), torch.tanh(self.scores(x))), -1)
        return y if self.last else y.transpose(1, 2)


def scores_are_a_little_off(model: onnx.ModelProto) -> None:
    tanh = next(node for node in model.graph.node if node.op_type == "Tanh")
    scaled = onnx.helper.make_node("Mul", ["right", "off"], [tanh.output[0]])
    tanh.output[0] = "right"
    place = list(model.graph.node).index(tanh)
    model.graph.node.insert(place + 1, scaled)
    model.graph.initializer.append(onnx.numpy_helper.from_array(torch.tensor(1.0002).numpy(), "off"))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mode", ["full", "certified"])
def test_boxes_do_not_hide_scores(last: bool, mode: Mode, tmp_path: Path) -> None:
    module = Detector(last=last)
    honest = verify(onnx_subject(module, POINTS, tmp_path), mode)
    assert honest.verdict is Verdict.passed, honest.findings
    faulty = verify(onnx_subject(module, POINTS, tmp_path, edit=scores_are_a_little_off), mode)
    assert f"5 of axis {2 if last else 1}" in findings(faulty)[Reason.parity].detail


def test_parts_are_found_one_within_the_other() -> None:
    y = torch.ones(2, 8, 300)
    y[:, 4:] *= 1e-4
    y[:, :, 200:] *= 1e-8
    assert [str(part) for part in small_parts(y)] == ["4 of axis 1", "4 of axis 1, 100 of axis 2"]
    assert [part.of(y).shape for part in small_parts(y)] == [(2, 4, 300), (2, 4, 100)]


@pytest.mark.parametrize("y", [torch.randn(4, 1000), torch.zeros(4, 1000), torch.tensor(3.0), torch.empty(0, 5)])
def test_one_scale_has_no_parts(y: Tensor) -> None:
    assert list(small_parts(y)) == []


def test_few_numbers_are_no_part() -> None:
    y = torch.ones(4, 100)
    y[:, :15] = 1e-6
    assert list(small_parts(y)) == []
