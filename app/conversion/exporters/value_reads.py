"""Values of the inputs that a model's own Python code reads: a trace keeps what they were for the sample.

Sizes are plain integers in an ordinary forward pass, so a model that only decides on shapes is never named here, as it
is by the tracer, to which sizes are tensors.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from app.architectures.calling import bind
from app.conversion.exporters.attention import plain_attention
from app.conversion.exporters.quiet import collected
from app.conversion.exporters.request import ExportRequest

FROZEN_VALUES = "Frozen values"
"""How the warning begins that says of a trace that Python decided on values of its inputs."""

_READS: frozenset[Any] = frozenset(
    {
        *(getattr(Tensor, f"__{name}__") for name in ("bool", "int", "float", "complex", "index", "contains", "array")),
        *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.is_nonzero, Tensor.equal, Tensor.allclose),
        *(torch.is_nonzero, torch.equal, torch.allclose),
    }
)
"""The functions through which a tensor's elements reach Python."""

_TORCH = Path(torch.__file__).parent
_WRAPPERS = frozenset(str(path) for path in (_TORCH / "_tensor.py", _TORCH / "overrides.py", Path(__file__)))


def frozen_values(request: ExportRequest) -> str | None:
    """The warning that a trace of the module needs; None if its code reads no value of an input.

    What counts is what the code does while it is traced: a read that ``torch.jit.is_tracing()`` keeps it from is none.
    Where a forward pass cannot be followed, nothing is said.
    """
    if not _reads(request):
        return None
    with as_if_tracing():
        reads = _reads(request)
    if not reads:
        return None
    return f"{FROZEN_VALUES}: the model's code reads its inputs with {', '.join(reads)}; the trace keeps one answer"


@contextmanager
def as_if_tracing() -> Iterator[None]:
    """Make ``torch.jit.is_tracing()`` answer yes, while sizes stay integers."""
    is_tracing = torch._C._is_tracing
    torch._C._is_tracing = lambda: True
    try:
        yield
    finally:
        torch._C._is_tracing = is_tracing


def _reads(request: ExportRequest) -> tuple[str, ...]:
    inputs = {name: tensor.clone() for name, tensor in request.sample.items()}
    args, kwargs = bind(request.module, request.signature, inputs)
    follow = _Following(inputs.values())
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), collected(), plain_attention(), follow:
            request.module(*args, **kwargs)
    except Exception:  # noqa: BLE001 - the exporter meets the same error, or the pretence of tracing is at fault
        return ()
    return tuple(dict.fromkeys(follow.reads))


class _Following(TorchFunctionMode):
    """Follows which tensors depend on the inputs, and notes where one is read outside torch's own code."""

    def __init__(self, inputs: Any) -> None:
        super().__init__()
        self.reads: list[str] = []
        self._dependent = WeakTensorKeyDictionary({tensor: True for tensor in inputs})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(tensor in self._dependent for tensor in given):
            return func(*args, **kwargs)
        if func in _READS and not _called_by_torch():
            self.reads.append(resolve_name(func) or func.__name__)
        versions = [tensor._version for tensor in given]
        result = func(*args, **kwargs)
        changed = [t for t, version in zip(given, versions, strict=True) if t._version != version]
        bases = [tensor._base for tensor in changed if tensor._base is not None]
        for tensor in (*tree_leaves(result), *changed, *bases):
            if isinstance(tensor, Tensor):
                self._dependent[tensor] = True
        return result


def _called_by_torch() -> bool:
    """Whether torch's own layers read the value: so they check arguments, and their result does not hang on it."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename in _WRAPPERS and frame.f_back is not None:
        frame = frame.f_back
    return _TORCH in Path(frame.f_code.co_filename).parents
