"""Tracing a model by torch.jit: what its code calls of torch meanwhile, and what of that a trace cannot hold."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode

from app.domain.errors import ExportFailed
from app.targets.capturing.place import Place, asking
from app.targets.capturing.quiet import Said, collected, first_line

_SILENT: frozenset[Any] = frozenset(
    {torch.equal, torch.allclose, torch.is_nonzero, Tensor.equal, Tensor.allclose, Tensor.is_nonzero}
)
"""What reads values without a warning of torch.jit's tracer."""


@contextmanager
def tracing() -> Iterator[Said]:
    """Collect what the tracer says, and in ``kept`` the lines of the model at which Python took an answer.

    Raises ExportFailed where a call of torch fails meanwhile.
    """
    with collected() as said, _watched() as silent:
        yield said
    said.kept[:] = dict.fromkeys((*said.kept, *silent))


def traced(module: nn.Module, examples: tuple[Tensor, ...]) -> torch.jit.ScriptModule:
    """The trace with these inputs. Raises ExportFailed where a call of torch fails, and what the model raises."""
    with _watched():
        made: torch.jit.ScriptModule = torch.jit.trace(module, examples, check_trace=False)  # type: ignore[no-untyped-call]
    return made


@contextmanager
def _watched() -> Iterator[list[Place]]:
    """Gives the lines at which the model read values silently.

    A trace in here ends where a call of torch fails, with ExportFailed, even where the model's code catches that: what
    torch.jit's tracer had recorded of the call is torn by then, and the process crashes if it goes on.
    """
    calls = _Calls()
    try:
        with calls, _functions_opened():
            yield calls.silent
    except _Failed as failed:
        said = f"{type(failed.error).__name__}: {first_line(str(failed.error))}"
        detail = f"{said} ({failed.place}); a trace ends there, whether or not the model's code goes on"
        raise ExportFailed(detail, stage="export") from failed.error


@contextmanager
def _functions_opened() -> Iterator[None]:
    """Inside, an autograd Function is what its ``forward`` calls: a trace holds ``apply`` as Python, which no file can.

    So it is for memory-efficient activations, straight-through estimates and whatever else differs in backward alone.
    """
    closed = vars(Function)["apply"]

    def apply(function: type[Function], *args: Any, **kwargs: Any) -> Any:
        context = FunctionCtx()
        context.needs_input_grad = (False,) * len(args)  # type: ignore[attr-defined]
        separate = function.setup_context is not Function.setup_context
        return function.forward(*(args if separate else (context, *args)), **kwargs)

    Function.apply = classmethod(apply)
    try:
        yield
    finally:
        Function.apply = closed


class _Failed(BaseException):
    """Passes a model's ``except Exception``."""

    def __init__(self, error: Exception, place: Place) -> None:
        super().__init__()
        self.error, self.place = error, place


class _Calls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.silent: list[Place] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _SILENT:
            self.silent.append(asking()[0])
        try:
            return func(*args, **(kwargs or {}))
        except (TypeError, AttributeError):  # raised before anything of the call is recorded
            raise
        except Exception as error:
            raise _Failed(error, asking()[0]) from error
