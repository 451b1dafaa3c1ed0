"""What a module remembers beside its weights: attributes, and what lies in lists, dictionaries and objects there.

A forward may bind anew whatever it likes (anchors that follow the input's dtype, tables cached by size) and write into
tensors and arrays that are no weights (a counter, a cache). One that was run for evidence only, in float64, with other
weights or with results moved, must leave nothing of it behind, and a graph is captured from the module as it was
loaded.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_INERT = (
    *(str, bytes, bytearray, int, float, complex, bool, type(None), type, ModuleType),
    *(FunctionType, BuiltinFunctionType, MethodType, torch.dtype, torch.device, torch.Generator),
)
"""Types that hold nothing a forward changes."""


class ModuleState:
    """Every attribute and container that is reachable from a module, as it is now, and what its tables hold.

    Parameters and persistent buffers are not copied: what is written into them is for weight_writes.py to find.
    """

    def __init__(self, module: nn.Module) -> None:
        self._restorers = list(_restorers(module))

    def restore(self) -> None:
        """Give each what it held."""
        for restore in self._restorers:
            restore()


@contextmanager
def state_kept(module: nn.Module) -> Iterator[None]:
    """Afterwards the module's state is what it was before."""
    state = ModuleState(module)
    try:
        yield
    finally:
        state.restore()


def _restorers(root: nn.Module) -> Iterator[Callable[[], None]]:
    state = root.state_dict(keep_vars=True).values()
    seen = {id(held) for held in state} | {_place(held) for held in state if _has_storage(held)}
    waiting: list[object] = [root]
    while waiting:
        holder = waiting.pop()
        place = _place(holder)
        if isinstance(holder, _INERT) or place in seen:
            continue
        seen.add(place)
        if (restore := _restorer(holder)) is not None:
            yield restore
        waiting += _held(holder)


def _restorer(holder: Any) -> Callable[[], None] | None:
    match holder:
        case dict():
            return _dictionary(holder, dict(holder))
        case list() | deque():
            return _sequence(holder, list(holder))
        case set():
            return _set(holder, set(holder))
        case np.ndarray() if holder.flags.writeable:
            return _array(holder, holder.copy())
        case Tensor() if _has_storage(holder):
            return _bytes(holder.untyped_storage())
    return None


def _held(holder: Any) -> Iterable[object]:
    """What lies in it; a set holds nothing that changes."""
    match holder:
        case dict():
            return holder.values()
        case list() | deque() | tuple():
            return holder
        case Tensor() | set() | np.ndarray():
            return ()
    attributes = getattr(holder, "__dict__", None)
    return (attributes,) if isinstance(attributes, dict) else ()


def _place(holder: object) -> int:
    """Tensors of one storage are one place: what is written into one of them, the others hold too."""
    return int(holder.untyped_storage()._cdata) if _has_storage(holder) else id(holder)  # type: ignore[attr-defined]


def _has_storage(holder: object) -> bool:
    """Whether it is a tensor with bytes of its own here: none that wraps others, is sparse, or has no data."""
    plain = type(holder) in (Tensor, nn.Parameter, nn.Buffer)
    return plain and holder.layout is torch.strided and holder.is_cpu  # type: ignore[attr-defined]


def _bytes(storage: torch.UntypedStorage) -> Callable[[], None]:
    """By bytes, since a trace would record, and a dispatch mode see, what is done to the tensors themselves."""
    before = storage.clone()  # type: ignore[no-untyped-call]

    def restore() -> None:
        if storage.nbytes() != before.nbytes():
            storage.resize_(before.nbytes())
        storage.copy_(before)

    return restore


def _array(held: np.ndarray, before: np.ndarray) -> Callable[[], None]:
    def restore() -> None:
        held[...] = before

    return restore


def _dictionary(held: dict[Any, Any], before: dict[Any, Any]) -> Callable[[], None]:
    def restore() -> None:
        if len(held) != len(before) or any(key not in held or held[key] is not value for key, value in before.items()):
            held.clear()
            held.update(before)

    return restore


def _sequence(held: list[Any] | deque[Any], before: list[Any]) -> Callable[[], None]:
    def restore() -> None:
        if len(held) != len(before) or any(now is not then for now, then in zip(held, before, strict=True)):
            held.clear()
            held.extend(before)

    return restore


def _set(held: set[Any], before: set[Any]) -> Callable[[], None]:
    def restore() -> None:
        if held != before:
            held.clear()
            held.update(before)

    return restore
