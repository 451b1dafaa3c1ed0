"""Calls of torch that fail while a model is traced: the tracer crashes the process where the model goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from app.domain.errors import ExportFailed
from app.targets.capturing.tracing import tracing


class Caught(nn.Module):
    """Goes another way where the length is not a multiple of four."""

    def forward(self, x: Tensor) -> Tensor:
        try:
            return x.view(x.shape[0], -1, 4).amax(2)
        except RuntimeError:
            return x.mean(1, keepdim=True)


class CaughtLast(nn.Module):
    """Calls nothing more behind the failed call."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        try:
            torch.cat([y, y.t()])
        except Exception:  # noqa: BLE001
            return y
        return x


class CaughtIndex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        try:
            return x.select(1, 100) + 1
        except IndexError:
            return x + 2


def trace(module: nn.Module, x: Tensor) -> torch.jit.ScriptModule:
    with tracing():
        return torch.jit.trace(module.eval(), (x,), check_trace=False, strict=False)  # type: ignore[no-any-return, no-untyped-call]


@pytest.mark.parametrize("module", [Caught, CaughtLast, CaughtIndex])
def test_a_trace_ends_where_the_model_catches_an_error_of_torch(module: Callable[[], nn.Module]) -> None:
    with pytest.raises(ExportFailed, match=r"\(test_tracing.py:\d+\); a trace ends there"):
        trace(module(), torch.ones(2, 7))


def test_where_no_call_fails_the_way_is_traced() -> None:
    x = torch.randn(2, 8)
    assert torch.equal(trace(Caught(), x)(x), Caught()(x))


def test_a_call_that_is_refused_before_it_is_recorded_may_be_caught() -> None:
    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return x + len(x.sum())
            except TypeError:
                return x + 1

    x = torch.randn(2, 8)
    assert torch.equal(trace(Counted(), x)(x), x + 1)


class Swish(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.sigmoid() * (1 + x * (1 - x.sigmoid())))


class Powered(Function):
    @staticmethod
    def forward(x: Tensor, power: int) -> Tensor:
        return x**power

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.power, _ = inputs[1], output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.power, None


def test_functions_with_a_backward_of_their_own_are_traced_as_what_they_compute(tmp_path: Path) -> None:
    class Activated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Powered.apply(Swish.apply(x), 3)  # type: ignore[no-any-return, no-untyped-call]

    x = torch.randn(2, 8)
    torch.jit.save(trace(Activated(), x), str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
    loaded = torch.jit.load(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
    assert torch.equal(loaded(x), Activated()(x))
    assert Activated()(x.requires_grad_()).grad_fn is not None
