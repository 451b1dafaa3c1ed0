"""Which tensor of a TorchScript archive lies in which of its records, read from data.pkl without running anything.

The pickle machine of TorchScript (torch/csrc/jit/serialization/pickler.cpp) writes modules as objects with attributes
and tensors as calls of torch._utils._rebuild_tensor_v2 on a storage named by a persistent id. Here every class and
function that a pickle names is replaced by an inert stand-in.
"""

import io
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.targets.templating.slots import TensorForm
from app.targets.templating.tensor_bytes import dtype_name, dtype_of


@dataclass(frozen=True)
class Storage:
    """A record of tensor data: ``key`` is its name below data/ or constants/, ``elements`` its length."""

    key: str
    dtype: str
    elements: int


@dataclass(frozen=True)
class ScriptTensor:
    """One tensor: ``path`` are the attributes that lead to it from the root module, joined by dots."""

    path: str
    storage: Storage
    form: TensorForm
    offset: int
    stride: tuple[int, ...]

    @property
    def fills_storage(self) -> bool:
        """Whether its elements, in row-major order, are the whole storage; the strides of none say nothing."""
        empty, expected = 0 in self.form.shape, 1
        for extent, stride in zip(reversed(self.form.shape), reversed(self.stride), strict=True):
            if extent != 1 and stride != expected and not empty:
                return False
            expected *= extent
        return self.offset == 0 and expected == self.storage.elements and self.form.dtype == self.storage.dtype

    def in_storage(self, content: bytes) -> Tensor:
        """The tensor, given its storage's record; a copy."""
        if not content:
            return torch.empty(self.form.shape, dtype=dtype_of(self.storage.dtype))
        storage = torch.frombuffer(bytearray(content), dtype=dtype_of(self.storage.dtype))
        return storage.as_strided(self.form.shape, self.stride, self.offset)


def script_tensors(pickled: bytes) -> list[ScriptTensor]:
    """Every tensor in the pickle, in the order of its attributes; a shared one under each of its paths."""
    root = _InertUnpickler(io.BytesIO(pickled)).load()
    return list(_tensors(root, (), set()))


@dataclass(frozen=True)
class _Tensor:
    storage: Storage
    form: TensorForm
    offset: int
    stride: tuple[int, ...]


class _Inert:
    """Stands for an object of any class, or for the result of any call."""

    def __init__(self, *args: Any) -> None:
        self.content: Any = args

    def __setstate__(self, state: Any) -> None:
        self.content = state


def _rebuild(storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, TensorForm(storage.dtype, tuple(size)), offset, tuple(stride))


class _InertUnpickler(pickle.Unpickler):
    """Knows tensors and containers; everything else becomes ``_Inert``."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name.endswith("Storage"):
            return dtype_name(getattr(torch, name).dtype)
        return _Inert

    def persistent_load(self, pid: Any) -> Storage:
        _, dtype, key, _, elements = pid
        dtype_of(dtype)
        return Storage(key, dtype, elements)


def _tensors(value: Any, path: tuple[str, ...], above: set[int]) -> Iterator[ScriptTensor]:
    if isinstance(value, _Tensor):
        yield ScriptTensor(".".join(path), value.storage, value.form, value.offset, value.stride)
        return
    if isinstance(value, _Inert):
        value = value.content
    if id(value) in above:
        return
    for name, child in _children(value):
        yield from _tensors(child, (*path, str(name)), above | {id(value)})


def _children(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple)) else ()
