"""A digest of everything that makes a module what it is, except the values of its state dict.

Loading may change a module beyond its tensors: a hook rebuilds a layer, sets a number, fills a non-persistent buffer.
A graph captured before that is wrong after it. Two modules with one digest have the same classes, attributes and
constants, so a graph of the one serves the other.
"""

import hashlib
import struct
import sys
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PurePath
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.domain.errors import TemplateMismatch
from app.targets.templating.tensor_bytes import tensor_bytes

_OF_EVERY_MODULE = (frozenset(vars(nn.Module())) - {"training"}) | {"__overloads__"}
"""Attributes that nn.Module itself keeps (parameters, buffers, hooks), and what torch.jit.script leaves on a module.

Tensors of the state dict are not described.
"""


def structure_digest(module: nn.Module) -> str:
    """sha256 in hexadecimal over the class, attributes and non-persistent buffers of every submodule.

    Numbers, strings, containers, tensors, arrays and plain objects count with their content; so do functions that can
    hold something of this module: those made while it was built or loaded, and methods of its objects. Functions that
    a library defines and anything else count by qualified name. Nothing that differs between two processes (addresses,
    ids, hash order) goes in.
    """
    description = _Description(module)
    for path, submodule in module.named_modules(remove_duplicate=False):
        description.add("module", path, _qualified(type(submodule)))
        for name, value in sorted(vars(submodule).items()):
            if name not in _OF_EVERY_MODULE:
                description.add("attribute", name)
                description.describe(value)
        for name in sorted(submodule._non_persistent_buffers_set):
            description.add("buffer", name)
            description.describe(submodule._buffers.get(name))
    return description.hexdigest()


def check_structure(digest: str, module: nn.Module) -> None:
    """Raise TemplateMismatch unless ``module`` has this structure."""
    if structure_digest(module) != digest:
        raise TemplateMismatch(
            "Loading these weights changed the module beyond its tensors, so the graph may not be the template's."
        )


class _Description:
    """A running hash of typed, length-delimited pieces, so that no two structures spell the same."""

    def __init__(self, module: nn.Module) -> None:
        self._hash = hashlib.sha256()
        self._state = {id(tensor): key for key, tensor in module.state_dict(keep_vars=True).items()}
        self._modules = {id(submodule): path for path, submodule in module.named_modules()}
        self._open: set[int] = set()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def add(self, *pieces: str | bytes | memoryview) -> None:
        for piece in pieces:
            data = piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece
            self._hash.update(struct.pack("<Q", len(data)))
            self._hash.update(data)

    def describe(self, value: Any) -> None:
        self.add(_qualified(type(value)))
        if id(value) in self._open:
            self.add("already being described")
            return
        self._open.add(id(value))
        for kind, describe in _KINDS.items():
            if isinstance(value, kind):
                describe(self, value)
                break
        else:
            self._object(value)
        self._open.discard(id(value))

    def _object(self, value: Any) -> None:
        """An object with attributes, such as a configuration; anything else counts by its type."""
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self.mapping(attributes)
        for name in sorted(_slots(type(value))):
            if hasattr(value, name):
                self.add("slot", name)
                self.describe(getattr(value, name))

    def plain(self, value: Any) -> None:
        self.add(repr(value))

    def name(self, value: Any) -> None:
        self.add(_qualified(value))

    def function(self, value: FunctionType) -> None:
        """By name where that name finds it again; another may have been made of numbers that only this module has."""
        self.name(value)
        if _found_by_name(value):
            return
        for part in (value.__code__, value.__closure__, value.__defaults__, value.__kwdefaults__, vars(value)):
            self.describe(part)

    def method(self, value: MethodType) -> None:
        self.describe(value.__func__)
        self.describe(value.__self__)

    def code(self, value: CodeType) -> None:
        self.add(value.co_code, *value.co_names)
        self.describe(value.co_consts)

    def cell(self, value: CellType) -> None:
        try:
            held = value.cell_contents
        except ValueError:  # nothing has been assigned to the variable yet
            self.add("empty")
            return
        self.describe(held)

    def array(self, value: NDArray[Any]) -> None:
        self.add(value.dtype.str, repr(value.shape))
        if value.dtype.hasobject:
            self.describe(value.tolist())
        else:
            self.add(value.tobytes())

    def partial(self, value: partial[Any]) -> None:
        for part in (value.func, value.args, value.keywords):
            self.describe(part)

    def sequence(self, values: list[Any] | tuple[Any, ...] | deque[Any]) -> None:
        self.add(str(len(values)))
        for value in values:
            self.describe(value)

    def unordered(self, values: set[Any] | frozenset[Any]) -> None:
        self.add(*sorted(repr(value) for value in values if isinstance(value, (str, int, float))))

    def mapping(self, values: Mapping[Any, Any]) -> None:
        self.add(str(len(values)))
        for key, value in values.items():
            self.describe(key)
            self.describe(value)

    def tensor(self, value: Tensor) -> None:
        if id(value) in self._state:
            self.add("state", self._state[id(value)])
            return
        self.add(str(value.dtype), repr(tuple(value.shape)), str(value.device.type))
        if value.device.type == "cpu" and value.layout == torch.strided:
            self.add(tensor_bytes(value))

    def module(self, value: nn.Module) -> None:
        self.add("module", self._modules.get(id(value), "outside"))


_KINDS: dict[type | tuple[type, ...], Callable[[_Description, Any], None]] = {
    (bool, int, float, complex, str, bytes, bytearray, type(None), range): _Description.plain,
    (torch.dtype, torch.device, np.generic, np.dtype, PurePath): _Description.plain,
    Tensor: _Description.tensor,
    nn.Module: _Description.module,
    (type, type(torch.relu)): _Description.name,
    FunctionType: _Description.function,
    MethodType: _Description.method,
    CodeType: _Description.code,
    CellType: _Description.cell,
    np.ndarray: _Description.array,
    partial: _Description.partial,
    (list, tuple, deque): _Description.sequence,
    (set, frozenset): _Description.unordered,
    Mapping: _Description.mapping,
}


def _qualified(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _found_by_name(value: FunctionType) -> bool:
    """Whether its module has this very function under its name."""
    scope: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        scope = getattr(scope, name, None)
    return scope is value


def _slots(kind: type) -> set[str]:
    """The names of ``__slots__``, of the class and of those it inherits from."""
    declared = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    names = {name for slots in declared for name in ([slots] if isinstance(slots, str) else slots)}
    return names - {"__dict__", "__weakref__"}
