"""What a module remembers beside its tensors: attributes, and what lies in lists, dictionaries and objects there.

A forward may bind anew whatever it likes (anchors that follow the input's dtype, tables cached by size). One that was
run for evidence only, in float64, with other weights or with results moved, must leave nothing of it behind, and a
graph is captured from the module as it was loaded.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_INERT = (
    *(str, bytes, bytearray, int, float, complex, bool, type(None), type, ModuleType, Tensor),
    *(FunctionType, BuiltinFunctionType, MethodType, torch.dtype, torch.device, torch.Generator),
)
"""Types that hold nothing a forward binds anew; what is written into a tensor is for weight_writes.py to find."""


class ModuleState:
    """Every attribute, list, dictionary and set that is reachable from a module, as it is now.

    Nothing is copied but references. Tensors that are written in place stay as they are.
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


def _restorers(root: object) -> Iterator[Callable[[], None]]:
    seen: set[int] = set()
    waiting: list[object] = [root]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, _INERT) or id(holder) in seen:
            continue
        seen.add(id(holder))
        if isinstance(holder, dict):
            yield _dictionary(holder, dict(holder))
            waiting += holder.values()
        elif isinstance(holder, list):
            yield _list(holder, list(holder))
            waiting += holder
        elif isinstance(holder, set):
            yield _set(holder, set(holder))
        elif isinstance(holder, tuple):
            waiting += holder
        elif isinstance(getattr(holder, "__dict__", None), dict):
            waiting.append(vars(holder))


def _dictionary(held: dict[Any, Any], before: dict[Any, Any]) -> Callable[[], None]:
    def restore() -> None:
        if len(held) != len(before) or any(key not in held or held[key] is not value for key, value in before.items()):
            held.clear()
            held.update(before)

    return restore


def _list(held: list[Any], before: list[Any]) -> Callable[[], None]:
    def restore() -> None:
        if len(held) != len(before) or any(now is not then for now, then in zip(held, before, strict=True)):
            held[:] = before

    return restore


def _set(held: set[Any], before: set[Any]) -> Callable[[], None]:
    def restore() -> None:
        if held != before:
            held.clear()
            held.update(before)

    return restore
