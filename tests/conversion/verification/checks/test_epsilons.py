"""Epsilons before a square root: those that are numbers of the code are audited, those that are tensors are not."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.promotion import Promoted, Trace, promotion, unwrap
from app.conversion.verification.verify import verify
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import FEATURES, findings, onnx_subject, torchscript_subject


class Normalising(nn.Module):
    """A root mean square norm written by hand."""

    def __init__(self, epsilon: nn.Parameter | Tensor | float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
        self.epsilon = nn.Buffer(epsilon) if type(epsilon) is Tensor else epsilon
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(hidden / torch.sqrt(hidden.pow(2).mean(-1, keepdim=True) + self.epsilon))


class Making(nn.Module):
    """An epsilon that the forward makes as a tensor."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 8)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return hidden / torch.sqrt(hidden * hidden + torch.tensor(0.02))


HONEST = [
    (Normalising(1e-3), "dynamo"),
    (Normalising(1e-3), "torchscript"),
    (Normalising(nn.Parameter(torch.tensor([1e-3]))), "dynamo"),
    (Normalising(nn.Parameter(torch.tensor([1e-3]))), "torchscript"),
    (Normalising(torch.tensor([1e-3])), "dynamo"),
    (Normalising(torch.tensor([1e-3])), "torchscript"),
    (Making(), "dynamo"),
]


@pytest.mark.parametrize(("module", "exporter"), HONEST)
def test_an_epsilon_of_any_kind_passes(module: nn.Module, exporter: str, tmp_path: Path) -> None:
    report = verify(onnx_subject(module, FEATURES, tmp_path, exporter=exporter))
    assert report.verdict is Verdict.passed, report.findings


def enlarge(model: onnx.ModelProto) -> None:
    """Make the one number 1e-3 of the graph ten times as large."""
    numbers = [tensor for tensor in model.graph.initializer if tensor.dims in ([], [1])]
    constants = [node for node in model.graph.node if node.op_type == "Constant"]
    numbers += [attribute.t for node in constants for attribute in node.attribute if attribute.name == "value"]
    changed = 0
    for tensor in numbers:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == "float32" and abs(value.item() - 1e-3) < 1e-9:
            tensor.CopyFrom(onnx.numpy_helper.from_array(value * 10, tensor.name))
            changed += 1
    assert changed == 1


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_another_number_fails_the_audit(exporter: str, tmp_path: Path) -> None:
    report = verify(onnx_subject(Normalising(1e-3), FEATURES, tmp_path, exporter=exporter, edit=enlarge))
    assert Reason.attributes in findings(report)


def test_another_learned_epsilon_fails_the_ledger(tmp_path: Path) -> None:
    module = Normalising(nn.Parameter(torch.tensor([1e-3])))
    report = verify(onnx_subject(module, FEATURES, tmp_path, edit=enlarge))
    assert Reason.ledger in findings(report)


class Implied(nn.Module):
    """Normalises with an epsilon that nobody wrote down: that of the dtype."""

    def __init__(self, norm: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
        self.norm = norm
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x) * 1e-3))


def by_finfo(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + torch.finfo(x.dtype).eps)


IMPLIED = (nn.RMSNorm(8), nn.RMSNorm(8, elementwise_affine=False), by_finfo)


@pytest.mark.parametrize(
    ("norm", "target"),
    [*((norm, target) for norm in IMPLIED for target in ("dynamo", "trace")), (by_finfo, "torchscript")],
)
def test_an_epsilon_that_follows_from_the_dtype_is_known(
    norm: Callable[[Tensor], Tensor], target: str, tmp_path: Path
) -> None:
    module = Implied(norm)
    if target == "trace":
        report = verify(torchscript_subject(module, FEATURES, tmp_path))
    else:
        report = verify(onnx_subject(module, FEATURES, tmp_path, exporter=target))
    assert report.verdict is Verdict.passed, report.findings


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_oracle_takes_the_epsilon_of_the_dtype_that_eager_computes_in(dtype: torch.dtype) -> None:
    norm = nn.RMSNorm(8, dtype=dtype).eval()
    x = torch.randn(2, 8, dtype=dtype) * 2e-4
    wide = x.double()
    exact = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + torch.finfo(torch.float32).eps)
    with promotion(Trace()):
        found = unwrap(norm(Promoted(wide)))
    assert (found - exact).abs().max() <= 1e-12 * exact.abs().max()
    assert (norm(x).double() - exact).abs().max() <= 4 * torch.finfo(dtype).eps * exact.abs().max()


def test_a_norm_exported_with_the_epsilon_of_another_dtype_fails(tmp_path: Path) -> None:
    wrong = Implied(nn.RMSNorm(8, eps=torch.finfo(torch.float16).eps))
    report = verify(onnx_subject(Implied(nn.RMSNorm(8)), FEATURES, tmp_path, of=wrong))
    assert report.verdict is Verdict.fail
