"""Outputs that jump where rounding decides: what lies on a step is no fault, what lies beside it is one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.conversion.verification.comparison import compared_with_oracle
from app.conversion.verification.oracle import reference
from app.conversion.verification.probes import Probe
from app.conversion.verification.reference import Reference
from app.conversion.verification.verify import verify
from app.domain.architecture import Axis, InputSpec, OutputSpec, Signature, Uniform
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


class Selecting(nn.Module):
    """The rows above a threshold, in the order of their scores."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, order = (x * 3).sum(1).sort(descending=True)
        kept = scores > 1
        return scores[kept], order[kept]


def detections() -> Reference:
    """What the model gives on five rows, of which one lies on the threshold."""
    inputs = torch.tensor([[0.2, 0.9], [1 / 3, 0.0], [0.1, 0.1], [0.7, 0.1], [0.4, 0.5]])
    signature = Signature(
        inputs=(InputSpec(name="x", shape=("rows", 2)),),
        axes=(Axis(name="rows", sample=5),),
        outputs=(OutputSpec(name="scores"), OutputSpec(name="order")),
    )
    return reference(EagerModel(Selecting(), signature), Probe("rows", {"rows": 5}, {"x": inputs}))


def test_one_row_more_or_fewer_passes_only_where_rounding_decides() -> None:
    taken = detections()
    assert taken.y32["scores"].tolist() == pytest.approx([3.3, 2.7, 2.4])
    with_the_fourth = {
        "scores": torch.cat([taken.y32["scores"], torch.ones(1)]),
        "order": torch.cat([taken.y32["order"], torch.tensor([1])]),
    }
    assert compared_with_oracle(with_the_fourth, taken).failure is None
    without_the_third = {name: value[:2] for name, value in taken.y32.items()}
    compared = compared_with_oracle(without_the_third, taken)
    assert compared.failure is Reason.output_structure
    assert compared.result.reason == "scores has shape (2,), the model gives (3,)"


def test_evaluations_of_other_numbers_of_rows_are_no_reason_to_give_up() -> None:
    taken = detections()
    wrong = {"scores": taken.y32["scores"] * 1.01, "order": taken.y32["order"]}
    compared = compared_with_oracle(wrong, taken)
    assert compared.failure is Reason.parity


class Ranking(nn.Module):
    """Classes and boxes in the order of scores, as a detector gives them."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, order = (x * 3).sum(1).sort(descending=True)
        return scores, order % 10, x[order] * 100


def ranked() -> tuple[Reference, Tensor]:
    """300 rows, and the order in which six pairs of them, whose scores rounding tells apart, have changed places."""
    inputs = torch.rand(300, 4, generator=torch.Generator().manual_seed(0))
    inputs[1:12:2] = inputs[0:12:2].roll(1, dims=1)
    signature = Signature(
        inputs=(InputSpec(name="x", shape=("rows", 4)),),
        axes=(Axis(name="rows", sample=300),),
        outputs=(OutputSpec(name="scores"), OutputSpec(name="labels"), OutputSpec(name="boxes")),
    )
    order = (inputs * 3).sum(1).sort(descending=True).indices
    pairs = {row: row ^ 1 for row in range(12)}
    exchanged = torch.tensor([pairs.get(int(row), int(row)) for row in order])
    return reference(EagerModel(Ranking(), signature), Probe("rows", {"rows": 300}, {"x": inputs})), exchanged


def test_rows_that_rounding_orders_may_change_places() -> None:
    taken, exchanged = ranked()
    x = taken.probe.inputs["x"]
    told = {"scores": taken.y32["scores"], "labels": exchanged % 10, "boxes": x[exchanged] * 100}
    assert int((told["labels"] != taken.y32["labels"]).sum()) > 3
    assert compared_with_oracle(told, taken).failure is None


def test_rows_whose_scores_differ_may_not() -> None:
    taken, _ = ranked()
    labels = taken.y32["labels"].clone()
    labels[200:202] = labels[200:202].flip(0) + torch.tensor([1, 0])
    assert compared_with_oracle({**taken.y32, "labels": labels}, taken).failure is Reason.parity
