"""Every tensor of an ONNX file, as a view on its bytes on disk.

The file and its external data are memory-mapped and walked field by field; no weight is copied and neither onnx nor
the exporter's libraries take part, so that what the ledger compares is what a runtime will read. Field numbers are
those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from app.targets.artifact import Bytes, MalformedFile, StoredTensor
from app.targets.onnx.reading.wire import (
    FIXED32,
    Field,
    fields,
    repeated_ints,
    text,
)

STRING = 8
_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
    **dict.fromkeys((27, 28), 6),
}
"""Bits per element of each TensorProto.DataType; strings have none."""
DTYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    14: torch.complex64,
    15: torch.complex128,
    16: torch.bfloat16,
    17: torch.float8_e4m3fn,
    18: torch.float8_e4m3fnuz,
    19: torch.float8_e5m2,
    20: torch.float8_e5m2fnuz,
}
"""torch's dtype of each TensorProto.DataType that has one."""
_TYPED_FIELDS = frozenset({4, 5, 6, 7, 10, 11})
"""float_data, int32_data, string_data, int64_data, double_data, uint64_data of TensorProto."""


def read_onnx(path: Path) -> tuple[StoredTensor, ...]:
    """Every tensor: initializers and attributes of the main graph, of its subgraphs and of local functions.

    Maps and walks the file. Raises MalformedFile for broken protobuf, sizes that disagree with dims, external data
    outside the file's directory, and training graphs.
    """
    return tuple(_Reader(path).read())


class _Reader:
    def __init__(self, path: Path) -> None:
        self.directory = path.parent.resolve()
        self.buffer = _map(path)
        self.whole = np.frombuffer(self.buffer, np.uint8)
        self.external: dict[str, Bytes] = {}

    def read(self) -> Iterator[StoredTensor]:
        for number, _, start, end in fields(self.buffer, 0, len(self.buffer)):
            if number == 7:
                yield from self._graph(start, end)
            elif number == 25:
                yield from self._function(start, end)
            elif number == 20:
                raise MalformedFile("the file holds training information, which may carry weights")

    def _graph(self, start: int, end: int) -> Iterator[StoredTensor]:
        for number, _, first, last in fields(self.buffer, start, end):
            if number == 1:
                yield from self._node(first, last)
            elif number == 5:
                yield self._tensor(first, last)
            elif number == 15:
                yield from self._sparse(first, last)

    def _function(self, start: int, end: int) -> Iterator[StoredTensor]:
        for number, _, first, last in fields(self.buffer, start, end):
            if number == 7:
                yield from self._node(first, last)

    def _node(self, start: int, end: int) -> Iterator[StoredTensor]:
        outputs, names, kinds, attributes = [], [""], [""], []
        for item in fields(self.buffer, start, end):
            if item[0] == 2:
                outputs.append(text(self.buffer, item))
            elif item[0] == 3:
                names.append(text(self.buffer, item))
            elif item[0] == 4:
                kinds.append(text(self.buffer, item))
            elif item[0] == 5:
                attributes.append((item[2], item[3]))
        for first, last in attributes:
            yield from self._attribute(first, last, outputs[0] if outputs else names[-1], kinds[-1] == "Constant")

    def _attribute(self, start: int, end: int, value: str, constant: bool) -> Iterator[StoredTensor]:
        """``value`` names the node's first output, after which tensors are called. Lists of floats count as tensors,
        and so do the scalars of Constant nodes."""
        name, scalar = "", False
        tensors: list[StoredTensor] = []
        floats: list[Bytes] = []
        for item in fields(self.buffer, start, end):
            number, wire_type, first, last = item
            if number == 1:
                name = text(self.buffer, item)
            elif number in (5, 10):
                tensors.append(self._tensor(first, last))
            elif number in (22, 23):
                tensors += self._sparse(first, last)
            elif number in (6, 11):
                yield from self._graph(first, last)
            elif number == 7 or (number == 2 and constant and wire_type == FIXED32):
                floats.append(self.whole[first:last])
                scalar = number == 2
        label = value if constant else f"{value}:{name}"
        yield from (replace(tensor, name=label) for tensor in tensors)
        if floats:
            data = np.concatenate(floats)
            dims = () if scalar else (data.size // 4,)
            yield StoredTensor(label, dims, torch.float32, data)

    def _sparse(self, start: int, end: int) -> list[StoredTensor]:
        return [self._tensor(item[2], item[3]) for item in fields(self.buffer, start, end) if item[0] in (1, 2)]

    def _tensor(self, start: int, end: int) -> StoredTensor:
        dims: list[int] = []
        once: dict[int, Field] = {}
        typed: list[Field] = []
        external: dict[str, str] = {}
        for item in fields(self.buffer, start, end):
            number = item[0]
            if number == 1:
                dims += repeated_ints(self.buffer, item)
            elif number == 13:
                external |= self._pair(item[2], item[3])
            elif number in _TYPED_FIELDS:
                typed.append(item)
            else:
                once[number] = item
        name = text(self.buffer, once[8]) if 8 in once else ""
        data_type = once[2][2] if 2 in once else 0
        if 3 in once or any(size < 0 for size in dims):
            raise MalformedFile(f"tensor {name!r} is stored in segments or has a negative dimension")
        size = _byte_size(name, dims, data_type)
        if 14 in once and once[14][2] == 1:
            data = self._external(name, external, size)
        elif 9 in once:
            data = self.whole[once[9][2] : once[9][3]]
        else:
            data = self._typed(typed, data_type)
        if size is not None and data.size != size:
            raise MalformedFile(f"tensor {name!r} of dims {dims} stores {data.size} bytes, not {size}")
        return StoredTensor(name, tuple(dims), DTYPES.get(data_type), data)

    def _pair(self, start: int, end: int) -> dict[str, str]:
        pair = {item[0]: text(self.buffer, item) for item in fields(self.buffer, start, end)}
        return {pair.get(1, ""): pair.get(2, "")}

    def _external(self, name: str, entries: dict[str, str], size: int | None) -> Bytes:
        location = entries.get("location", "")
        if location not in self.external:
            relative = PurePosixPath(location)
            path = (self.directory / location).resolve()
            if not location or relative.is_absolute() or ".." in relative.parts or self.directory not in path.parents:
                raise MalformedFile(f"tensor {name!r} lies outside the artifact's directory: {location!r}")
            self.external[location] = np.frombuffer(_map(path), np.uint8)
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", size or 0))
        data = self.external[location][offset : offset + length]
        if offset < 0 or length < 0 or data.size != length:
            raise MalformedFile(f"tensor {name!r} runs past the end of {location!r}")
        return data

    def _typed(self, items: list[Field], data_type: int) -> Bytes:
        """The bytes of a tensor stored in the typed fields (float_data and its like) instead of raw_data."""
        if data_type == STRING:
            return np.concatenate([self.whole[start:end] for _, _, start, end in items] or [self.whole[:0]])
        spans = [self.whole[start:end] for number, _, start, end in items if number in (4, 10)]
        if spans:
            return np.concatenate(spans)
        ints = [value for item in items for value in repeated_ints(self.buffer, item)]
        bits = max(_BITS[data_type], 8)  # int32_data holds sub-byte types already packed, one byte to an entry
        mask = (1 << bits) - 1
        return np.frombuffer(b"".join((value & mask).to_bytes(bits // 8, "little") for value in ints), np.uint8)


def _byte_size(name: str, dims: list[int], data_type: int) -> int | None:
    if data_type == STRING:
        return None
    if data_type not in _BITS:
        raise MalformedFile(f"tensor {name!r} has the unknown data type {data_type}")
    return (prod(dims) * _BITS[data_type] + 7) // 8


def _map(path: Path) -> mmap:
    try:
        with path.open("rb") as file:
            return mmap(file.fileno(), 0, access=ACCESS_READ)
    except (OSError, ValueError) as error:
        raise MalformedFile(f"{path.name} cannot be mapped: {error}") from error
