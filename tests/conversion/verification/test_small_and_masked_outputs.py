"""Outputs that one tolerance by their size judges wrongly: single numbers, scores of a sigmoid, masked scores."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.conversion.verification.noise import pooled
from app.conversion.verification.oracle import reference
from app.conversion.verification.probes import draw_probe
from app.conversion.verification.tolerance import gate_of
from app.conversion.verification.verify import Mode, verify
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import FEATURES, Perceptron, findings, onnx_subject


class Detector(nn.Module):
    """Scores with the prior that detectors are initialised with: a bias of -4.6 and below."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(6, 4)
        self.bias = bias
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.bias).sigmoid().unsqueeze(1).flatten(1)


class Masked(nn.Module):
    """Four scores, of which the mask silences the last two."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(6, 4)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.tanh(self.body(x))
        return scores.masked_fill(torch.arange(4) > 1, -1e9)


class Chosen(Masked):
    """The best of the scores."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1)


def tanh_becomes_sigmoid(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Tanh")
    node.op_type = "Sigmoid"


def argmax_becomes_argmin(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "ArgMax").op_type = "ArgMin"


@pytest.mark.parametrize("mode", ["full", "certified"])
@pytest.mark.parametrize("bias", [-4.6, -7.0, -9.0])
def test_small_scores_of_a_sigmoid_pass(bias: float, mode: Mode, tmp_path: Path) -> None:
    assert verify(onnx_subject(Detector(bias), FEATURES, tmp_path), mode).verdict is Verdict.passed


def test_only_what_a_sigmoid_gave_counts_as_computed_at_size_one() -> None:
    probe = draw_probe(FEATURES, {"batch": 2}, 0)
    assert reference(EagerModel(Detector(0.0), FEATURES), probe).oracle.answer.trace.sigmoids == {"y"}
    assert reference(EagerModel(Perceptron(), FEATURES), probe).oracle.answer.trace.sigmoids == set()


@pytest.mark.parametrize("mode", ["full", "certified"])
def test_silenced_scores_do_not_hide_the_others(mode: Mode, tmp_path: Path) -> None:
    assert verify(onnx_subject(Masked(), FEATURES, tmp_path), mode).verdict is Verdict.passed
    faulty = verify(onnx_subject(Masked(), FEATURES, tmp_path, edit=tanh_becomes_sigmoid), mode)
    assert Reason.parity in findings(faulty)


@pytest.mark.parametrize("mode", ["full", "certified"])
def test_silenced_scores_make_no_ties(mode: Mode, tmp_path: Path) -> None:
    faulty = verify(onnx_subject(Chosen(), FEATURES, tmp_path, edit=argmax_becomes_argmin), mode)
    assert Reason.parity in findings(faulty)


class Regressor(nn.Module):
    """One number, a difference of much larger ones."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(6, 256), nn.Linear(256, 1)
        self.offset = offset
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.offset
        return self.head(torch.tanh(self.body(x)) * 100) - self.head(torch.tanh(self.body(x * 1.001)) * 100)


def spread(errors: list[float]) -> float:
    return max(errors) / max(min(errors), 1e-30)


def test_one_number_that_is_right_by_luck_does_not_narrow_its_gate() -> None:
    model = EagerModel(Regressor(0.0), FEATURES)
    taken = [reference(model, draw_probe(FEATURES, {"batch": 1}, seed)) for seed in range(40)]
    alone = [gate_of(one.y32["y"], one.y64["y"]).eager_error for one in taken]
    nudged = [one.gate("y").eager_error for one in taken]
    assert spread(alone) > 3 * spread(nudged)


def test_draws_tell_of_each_others_error_where_nudging_the_inputs_changes_nothing() -> None:
    model = EagerModel(Regressor(300.0), FEATURES)
    taken = [reference(model, draw_probe(FEATURES, {"batch": 1}, seed)) for seed in range(5)]
    relative = {one.gate("y").eager_error / one.gate("y").scale for one in taken}
    together = {one.gate("y").eager_error / one.gate("y").scale for one in pooled(taken)}
    assert min(together) == pytest.approx(max(relative))
