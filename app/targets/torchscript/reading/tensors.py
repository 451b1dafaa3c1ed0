"""Every tensor of a TorchScript file, as a view on its bytes on disk.

The archive is a zip with uncompressed records (torch/csrc/jit/serialization): ``data.pkl`` is the object tree of the
module, ``constants.pkl`` the tuple of tensors that the code calls CONSTANTS.c0, c1, ...; storages lie in ``data/`` and
``constants/``. The pickles are read with an unpickler that knows tensors and containers; every other name becomes an
inert record of its arguments. Nothing is imported, nothing runs.
"""

import io
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.targets.artifact import Bytes, MalformedFile, StoredTensor
from app.targets.records import Records

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_SIGNS_OF_DAMAGE = (
    *(pickle.UnpicklingError, OSError),
    *(EOFError, LookupError, TypeError, ValueError, AttributeError, RecursionError),
)
"""What pickle raises for archives that are not what they claim to be."""
_DEEPEST = 200


def read_torchscript(path: Path) -> tuple[StoredTensor, ...]:
    """Tensors of attributes under their dotted paths, and of constants as CONSTANTS.cN.

    Maps and walks the archive. Raises MalformedFile for a broken one, and for tensors that leave their storage.
    """
    try:
        return _Archive(path).read()
    except MalformedFile:
        raise
    except _SIGNS_OF_DAMAGE as error:
        raise MalformedFile(f"{path.name} is no TorchScript archive: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class _Storage:
    record: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class _View:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Opaque:
    """Stands for an object of any other class: holds what it was made of."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Module(_Opaque):
    """Stands for an object of a class that the archive's own code defines."""

    def __new__(cls, *_: object) -> "_Module":
        made = object.__new__(cls)
        made.parts, made.state = (), None
        return made


def _rebuild(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> _View:
    return _View(storage, offset, tuple(size), tuple(stride))


class _Unpickler(pickle._Unpickler):
    """The unpickler in Python: TorchScript writes enumerations in a form that the one in C refuses."""

    def __init__(self, data: bytes, folder: str) -> None:
        super().__init__(io.BytesIO(data))
        self.folder = folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")}:
            return _rebuild
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        return _Module if module.startswith("__torch__") else _Opaque

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise MalformedFile(f"{self.folder} refers to {pid!r}")
        return _Storage(f"{self.folder}/{key}", dtype, int(numel))


@dataclass(eq=False)
class _Archive:
    path: Path
    found: dict[tuple[str, int, tuple[int, ...], tuple[int, ...]], StoredTensor] = field(default_factory=dict)

    def read(self) -> tuple[StoredTensor, ...]:
        self.records = Records(self.path)
        attributes = self._unpickle("data")
        constants = self._unpickle("constants")
        for name, view in _tensors(attributes, ""):
            self._store(name, view)
        for number, value in enumerate(_parts(constants)):
            for name, view in _tensors(value, f"CONSTANTS.c{number}"):
                self._store(name, view)
        loose = [self._loose(name) for name in self.records if self._unread(name)]
        return (*self.found.values(), *loose)

    def _unpickle(self, name: str) -> object:
        return _Unpickler(self.records[f"{name}.pkl"].tobytes(), name).load()

    def _store(self, name: str, view: _View) -> None:
        """Note the tensor of a view under its name; one that several attributes share is one tensor."""
        key = (view.storage.record, view.offset, view.size, view.stride)
        known = self.found.get(key)
        if known is None:
            data = self._data(view)
            self.found[key] = StoredTensor(name, view.size, view.storage.dtype, data)
        else:
            self.found[key] = replace(known, aliases=(*known.aliases, name))

    def _data(self, view: _View) -> Bytes:
        item = view.storage.dtype.itemsize
        record = self.records[view.storage.record]
        reach = view.offset + sum((size - 1) * step for size, step in zip(view.size, view.stride, strict=True)) + 1
        numel = int(np.prod(view.size, dtype=np.int64))
        if min((view.offset, *view.size, *view.stride)) < 0 or (numel and reach * item > record.size):
            raise MalformedFile(f"a tensor of size {view.size} leaves its storage {view.storage.record}")
        start = view.offset * item
        if _is_contiguous(view):
            return record[start : start + numel * item]
        strides = (*(step * item for step in view.stride), 1)
        elements = np.lib.stride_tricks.as_strided(record[start:], (*view.size, item), strides, writeable=False)
        return np.ascontiguousarray(elements).reshape(-1)

    def _unread(self, name: str) -> bool:
        known = {key[0] for key in self.found}
        return re.fullmatch(r"(data|constants)/\d+", name) is not None and name not in known

    def _loose(self, name: str) -> StoredTensor:
        """A storage that no tensor refers to: bytes without a type."""
        data = self.records[name]
        return StoredTensor(name, (data.size,), None, data)


def _is_contiguous(view: _View) -> bool:
    expected = 1
    for size, step in zip(reversed(view.size), reversed(view.stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


def _parts(constants: object) -> tuple[object, ...]:
    if isinstance(constants, (tuple, list)):
        return tuple(constants)
    return constants.parts if isinstance(constants, _Opaque) else ()


def _tensors(value: object, path: str, depth: int = 0) -> Iterator[tuple[str, _View]]:
    """Tensors of the object tree under dotted paths. Attributes come before the containers that repeat them."""
    if depth > _DEEPEST:
        raise MalformedFile("the module's objects nest too deep")
    if isinstance(value, _View):
        yield path, value
        return
    if isinstance(value, _Storage):
        yield path, _View(value, 0, (value.numel,), (1,))
        return
    if isinstance(value, _Opaque):
        if value.parts:
            yield from _tensors(value.parts, path, depth + 1)
        value = value.state
    items: list[tuple[object, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, (tuple, list)):
        items = list(enumerate(value))
    for key, part in sorted(items, key=lambda item: isinstance(item[1], (tuple, list, dict))):
        yield from _tensors(part, f"{path}.{key}" if path else str(key), depth + 1)
