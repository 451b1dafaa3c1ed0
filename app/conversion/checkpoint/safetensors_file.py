"""Reading a safetensors file. The format: safetensors README, "Format"."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.conversion.checkpoint.extent import Extent
from app.conversion.checkpoint.json_table import read_table
from app.conversion.checkpoint.names import check_key, shown
from app.conversion.checkpoint.stored_tensors import MAX_DIMENSIONS, Storage, Stored, TensorView, Unreadable
from app.conversion.checkpoint.torch_files import Contents
from app.domain.errors import CorruptCheckpoint
from app.targets.safetensors.reading.reader import DTYPES

FORMAT_LIMIT = 100_000_000
"""Bytes of a header that the format admits."""
_PACKED = frozenset({"F4", "F6_E2M3", "F6_E3M2"})
_MEMBERS = {"dtype", "shape", "data_offsets"}


def read_safetensors(file: Extent) -> Contents:
    """Tensors by name, in the order of their bytes.

    Raises CorruptCheckpoint for a header that breaks the format: too long, not JSON, duplicate keys, unknown dtypes,
    ranges that overlap, leave holes or lead beyond the file; PayloadTooLarge for one that is too large to parse.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > FORMAT_LIMIT or 8 + length > file.size:
        raise CorruptCheckpoint(f"The safetensors header declares {length} bytes in a file of {file.size}.")
    header = read_table(file.part(8, length), "The safetensors header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptCheckpoint("The safetensors header's metadata are not text.")
    found = [_entry(name, entry) for name, entry in header.items()]
    return Contents(dict(_placed(found, file.part(8 + length, file.size - 8 - length))), _notes(metadata))


@dataclass(frozen=True)
class _Entry:
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _entry(name: str, entry: object) -> _Entry:
    check_key(name)
    if not isinstance(entry, dict) or entry.keys() != _MEMBERS:
        raise CorruptCheckpoint(f"The safetensors header describes {name!r} by other members than it may have.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or (dtype not in DTYPES and dtype not in _PACKED):
        raise CorruptCheckpoint(f"{name!r} has a dtype that the format does not know.", tensor=name)
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2):
        raise CorruptCheckpoint(f"{name!r} has no shape or no place.", tensor=name)
    if any(type(number) is not int or not 0 <= number < 1 << 62 for number in (*shape, *offsets)):
        raise CorruptCheckpoint(f"{name!r} has a shape or place that no tensor can have.", tensor=name)
    return _Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _placed(entries: list[_Entry], data: Extent) -> Iterator[tuple[str, Stored]]:
    """The tensors, whose bytes must follow one another from the data's begin to its end."""
    reached = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != reached or entry.end < entry.begin:
            raise CorruptCheckpoint(f"The bytes of {entry.name!r} overlap others or leave a hole.", tensor=entry.name)
        reached = entry.end
        yield entry.name, _tensor(entry, data)
    if reached != data.size:
        raise CorruptCheckpoint(f"The header describes {reached} bytes of values, the file holds {data.size}.")


def _tensor(entry: _Entry, data: Extent) -> Stored:
    size = entry.end - entry.begin
    extent = data.part(entry.begin, size)
    if entry.dtype in _PACKED:
        return Unreadable(f"of packed elements ({entry.dtype})", "Save the weights before quantization.")
    dtype = DTYPES[entry.dtype]
    if len(entry.shape) > MAX_DIMENSIONS or math.prod(entry.shape) * dtype.itemsize != size:
        raise CorruptCheckpoint(f"{entry.name!r} has {size} bytes, which its shape does not need.", tensor=entry.name)
    return TensorView(Storage(entry.name, dtype, size, extent), dtype, 0, entry.shape, _contiguous(entry.shape))


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(size, 1))
    return tuple(reversed(strides)) if shape else ()


def _notes(metadata: Mapping[str, str]) -> tuple[str, ...]:
    framework = metadata.get("format", "pt")
    return () if framework == "pt" else (f"saved for framework {shown(framework)}",)
