"""Calls of torch that fail while a model is traced, and are caught by the model's own code."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch.overrides import TorchFunctionMode

from app.domain.errors import ExportFailed
from app.targets.capturing.place import Place, asking
from app.targets.capturing.quiet import first_line


@contextmanager
def ended_by_failed_calls() -> Iterator[None]:
    """A trace in here ends where a call of torch fails, with ExportFailed, even where the model's code catches that.

    What torch.jit's tracer had recorded of the call is torn by then, and the process crashes if it goes on.
    """
    try:
        with _FailedCalls():
            yield
    except _Failed as failed:
        said = f"{type(failed.error).__name__}: {first_line(str(failed.error))}"
        detail = f"{said} ({failed.place}); a trace ends there, whether or not the model's code goes on"
        raise ExportFailed(detail, stage="export") from failed.error


class _Failed(BaseException):
    """Passes a model's ``except Exception``."""

    def __init__(self, error: Exception, place: Place) -> None:
        super().__init__()
        self.error, self.place = error, place


class _FailedCalls(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except (TypeError, AttributeError):  # raised before anything of the call is recorded
            raise
        except Exception as error:
            raise _Failed(error, asking()[0]) from error
