"""Joined graphs take, at every size, the way that Python would, and hold the weights once."""

import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from app.architectures.sample import sample_inputs
from app.domain.architecture import Axis, InputSpec, Signature
from app.domain.errors import ExportFailed
from app.targets.capturing.side import Side, holds
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.writer import WRITER
from app.targets.request import ExportRequest

SIGNATURE = Signature(
    inputs=(InputSpec(name="x", shape=("a", "b", 3)),),
    axes=(Axis(name="a", sample=4, minimum=0), Axis(name="b", sample=5, minimum=0)),
)
SIZES = [{"a": a, "b": b} for a in (0, 1, 2, 4, 7, 8) for b in (0, 1, 5, 8, 13)]


class Asking(nn.Module):
    """Takes another way where its tests do not hold."""

    def __init__(self, *tests: str) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.tests = tests

    def forward(self, x: Tensor) -> Tensor:
        sizes = {"a": int(x.shape[0]), "b": int(x.shape[1])}
        h: Tensor = self.linear(x)
        for number, test in enumerate(self.tests, 2):
            if not holds(test, sizes):
                h = h.sigmoid() * number
        return h


def request_of(module: nn.Module) -> ExportRequest:
    return ExportRequest(module.eval(), SIGNATURE, OnnxOptions(), sample_inputs(SIGNATURE, {}, torch.Generator()))


def session(module: nn.Module, exporter: str, sides: list[Side]) -> onnxruntime.InferenceSession:
    captured = WRITER.capture(request_of(module), exporter, sides)
    assert list(captured.model.graph.initializers).count("linear.weight") == 1
    return onnxruntime.InferenceSession(ir.to_proto(captured.model).SerializeToString())


def check(module: nn.Module, run: onnxruntime.InferenceSession) -> None:
    for sizes in SIZES:
        x = torch.randn(sizes["a"], sizes["b"], 3)
        (got,) = run.run(None, {"x": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(got), module(x), msg=str(sizes))


@pytest.mark.parametrize(
    "test",
    [
        "a <= b",
        "a * b <= 20",
        "(a + 3) // 4 == 1",
        "(((-1)*b) % 8) != 0",
        "(1 - a) // 2 == -1",
        "max(a, b) > 7 or not (b >= 5)",
        "min(a, b, 4) < 3 and b > 1",
        "abs(a - b) >= 3",
        "a / (b + 1) <= 1.5",
        "max(a / 2, 3) != 3",
    ],
)
def test_a_test_is_answered_as_python_answers_it(test: str) -> None:
    module = Asking(test)
    start = next(sizes for sizes in SIZES if holds(test, sizes) and min(sizes.values()) > 1)
    other = next(sizes for sizes in SIZES if not holds(test, sizes) and min(sizes.values()) > 0)
    check(module, session(module, "torchscript", [Side(start, (test,)), Side(other)]))


@pytest.mark.parametrize("exporter", WRITER.joined)
def test_sides_are_asked_one_after_the_other(exporter: str) -> None:
    module = Asking("a < 7", "b < 8")
    sides = [
        Side({"a": 4, "b": 5}, ("a < 7", "b < 8")),
        Side({"a": 4, "b": 13}, ("a < 7",)),
        Side({"a": 8, "b": 5}, ("b < 8",)),
        Side({"a": 8, "b": 13}),
    ]
    check(module, session(module, exporter, sides))


def test_a_side_without_rows_is_captured_by_an_exporter_that_takes_none() -> None:
    module = Asking("b > 0")
    check(module, session(module, "dynamo", [Side({"a": 4, "b": 5}, ("b > 0",)), Side({"a": 4, "b": 0})]))


class FurtherOutput(Asking):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        h = super().forward(x)
        return (h, h) if x.shape[0] > 7 else (h,)


def test_sides_that_give_other_outputs_are_not_joined() -> None:
    with pytest.raises(ExportFailed, match="other outputs at other sizes"):
        session(FurtherOutput(), "torchscript", [Side({"a": 4, "b": 5}, ("a < 8",)), Side({"a": 8, "b": 5})])
