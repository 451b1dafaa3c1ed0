"""Tensors as views of byte ranges of files: what they are is known before any of their values is read."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from app.conversion.checkpoint.extent import Extent
from app.domain.errors import CorruptCheckpoint, UnsupportedTensor

EXPANDED_LIMIT = 1 << 26
"""Bytes that a tensor may hold beyond its storage, by strides of 0; more is an attack on memory, not a weight."""
MAX_TENSORS = 100_000
"""Tensors of a state dict; the largest published models have some thousands."""
MAX_DIMENSIONS = 64
"""As in torch, where c10::SmallVector and kernels stop."""


def are_sizes(values: object) -> bool:
    """Whether it can be a tensor's shape, strides or offsets: few numbers, as cheap to compare as they look."""
    return (
        isinstance(values, (tuple, list))
        and len(values) <= MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value < 1 << 62 for value in values)
    )


@dataclass(eq=False)
class Storage:
    """Bytes that tensors view. A pickle declares it; the reader of the format finds it in the file."""

    key: str | int
    dtype: torch.dtype
    bytes: int
    extent: Extent | None = None
    swapped: bool = False
    """Written on a big-endian machine."""
    root: "Storage | None" = None
    """The storage of which this is a part, from byte ``start`` on."""
    start: int = 0


@dataclass(frozen=True, eq=False)
class TensorView:
    """A dense tensor: elements of ``dtype`` of a storage, ``offset`` and ``stride`` counted in elements.

    Raises CorruptCheckpoint for numbers that no tensor has, wherever in a file it is: what others compare and hash is
    small.
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.stride) or len(self.shape) > MAX_DIMENSIONS:
            raise CorruptCheckpoint(
                f"A tensor declares {len(self.shape)} dimensions and {len(self.stride)} strides; it may have "
                f"{MAX_DIMENSIONS}, with a stride for each."
            )
        if not (are_sizes(self.shape) and are_sizes(self.stride) and are_sizes((self.offset,))):
            raise CorruptCheckpoint("A tensor declares a shape, stride or offset that no tensor has.")

    @property
    def place(self) -> str:
        """Equal for views that are one tensor. A text: strides can be made whose tuples have one and the same hash."""
        return f"{id(self.storage)} {self.dtype} {self.offset} {self.shape} {self.stride}"


@dataclass(frozen=True, eq=False)
class Assembled:
    """A dense tensor whose parts follow one another along one axis; they are copied together when it is made."""

    parts: tuple[TensorView, ...]
    axis: int


@dataclass(frozen=True, eq=False)
class Unreadable:
    """A tensor that is not a plain dense one: ``what`` it is completes "the tensor ...", ``hint`` says the way out."""

    what: str
    hint: str | None = None


Stored = TensorView | Assembled | Unreadable

DENSE_DTYPES: Mapping[str, torch.dtype] = {
    str(dtype): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2,
        torch.float8_e5m2fnuz,
        torch.float8_e8m0fnu,
        torch.complex128,
        torch.complex64,
        torch.complex32,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint64,
        torch.uint32,
        torch.uint16,
        torch.uint8,
        torch.bool,
    )
}
"""Dtypes of which one element is a whole number of bytes and stands for itself."""


@dataclass
class Memory:
    """Makes tensors of views. Files are mapped (private) once; views of one storage share its memory."""

    _files: dict[Path, torch.UntypedStorage] = field(default_factory=dict)
    _storages: dict[Storage, torch.UntypedStorage] = field(default_factory=dict)

    def tensor(self, name: str, stored: Stored) -> torch.Tensor:
        """The tensor, on CPU, detached. ``name`` is for errors.

        Raises UnsupportedTensor for an unreadable one, CorruptCheckpoint for a view that reaches beyond its storage.
        """
        if isinstance(stored, Unreadable):
            raise UnsupportedTensor(f"{name!r} is {stored.what}.", hint=stored.hint, tensor=name)
        if isinstance(stored, Assembled):
            parts = [self.tensor(name, part) for part in stored.parts]
            held = sum(part.storage.bytes for part in stored.parts)
            if sum(part.nbytes for part in parts) > held + EXPANDED_LIMIT:
                raise CorruptCheckpoint(f"{name!r} is made of parts of far fewer bytes.", tensor=name)
            return torch.cat(parts, stored.axis)
        check(name, stored)
        storage = self._storages.get(stored.storage)
        if storage is None:
            storage = self._storages[stored.storage] = self._storage(stored.storage)
        offset = stored.offset if math.prod(stored.shape) else 0
        return torch.empty(0, dtype=stored.dtype).set_(storage, offset, stored.shape, stored.stride)

    def mapping(self, path: Path) -> "MappedFile | None":
        """The file where it lies in memory; None where no tensor does, or where one was changed on the way."""
        whole = self._files.get(path)
        swapped = any(storage.swapped for storage in self._storages)
        return None if whole is None or swapped else MappedFile(whole)

    def _storage(self, storage: Storage) -> torch.UntypedStorage:
        extent = storage.extent
        if storage.root is not None and storage.root.extent is not None:
            extent = storage.root.extent.part(storage.start, storage.bytes)
        if extent is None:
            raise CorruptCheckpoint(f"No record of the file holds the storage {storage.key!r}.")
        if extent.size == 0:
            return torch.empty(0).untyped_storage()
        whole = self._files.get(extent.path)
        if whole is None:
            size = extent.path.stat().st_size
            whole = torch.from_file(str(extent.path), shared=False, size=size, dtype=torch.uint8).untyped_storage()
            self._files[extent.path] = whole
        mapped: torch.UntypedStorage = whole[extent.offset : extent.offset + extent.size]
        if storage.swapped and sys.byteorder == "little":  # in private pages: the file stays as it is
            mapped.byteswap(storage.dtype)  # type: ignore[no-untyped-call]
        return mapped


@dataclass(frozen=True, eq=False)
class MappedFile:
    """A file whose bytes lie in memory one after another."""

    memory: torch.UntypedStorage

    def offset(self, tensor: torch.Tensor) -> int | None:
        """Where in the file the tensor's elements stand in rows, one after another; None where they do not."""
        offset = tensor.data_ptr() - self.memory.data_ptr()
        inside = offset >= 0 and offset + tensor.nbytes <= self.memory.nbytes()
        return offset if inside and tensor.is_contiguous() else None


def check(name: str, view: TensorView) -> None:
    """Raises CorruptCheckpoint unless the view lies in its storage."""
    if view.storage.swapped and view.dtype is not view.storage.dtype and view.dtype.itemsize > 1:
        raise UnsupportedTensor(f"{name!r} was written on a big-endian machine without its type.", tensor=name)
    if math.prod(size for size in view.shape if size) >= 1 << 62:
        raise CorruptCheckpoint(f"{name!r} declares more elements than can be counted.", tensor=name)
    elements = math.prod(view.shape)
    reached = view.offset + sum((size - 1) * step for size, step in zip(view.shape, view.stride, strict=True)) + 1
    needed = reached * view.dtype.itemsize if elements else 0
    if needed > view.storage.bytes or elements * view.dtype.itemsize > view.storage.bytes + EXPANDED_LIMIT:
        raise CorruptCheckpoint(
            f"{name!r} declares {max(needed, elements * view.dtype.itemsize)} bytes over a storage of "
            f"{view.storage.bytes}.",
            tensor=name,
        )
