"""Lines of a model at which a trace kept the answer that its sample gave."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from app.targets.capturing.failed_calls import ended_by_failed_calls
from app.targets.capturing.place import Place, asking
from app.targets.capturing.quiet import Said, collected

_SILENT: frozenset[Any] = frozenset(
    {torch.equal, torch.allclose, torch.is_nonzero, Tensor.equal, Tensor.allclose, Tensor.is_nonzero}
)
"""What reads values without a warning of torch.jit's tracer."""


@contextmanager
def tracing() -> Iterator[Said]:
    """Collect what the tracer says, and in ``kept`` the lines of the model at which Python took an answer.

    Raises ExportFailed where a call of torch fails meanwhile.
    """
    silent = _SilentReads()
    with ended_by_failed_calls(), collected() as said, silent:
        yield said
    said.kept[:] = dict.fromkeys((*said.kept, *silent.places))


class _SilentReads(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.places: list[Place] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _SILENT:
            self.places.append(asking()[0])
        return func(*args, **(kwargs or {}))
