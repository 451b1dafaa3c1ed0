"""Every tensor of an ONNX file, as a view on its bytes on disk, and the nodes that use them.

The file and its external data are memory-mapped and walked field by field; no weight is copied and neither onnx nor
the exporter's libraries take part, so that what the ledger compares is what a runtime will read. Field numbers are
those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.conversion.verification.artifact.protobuf_wire import (
    FIXED32,
    Field,
    MalformedFile,
    fields,
    repeated_ints,
    text,
)

Bytes = NDArray[np.uint8]
Place = Literal["initializer", "sparse_initializer", "attribute"]

STRING = 8
FLOAT = 1
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
_TYPED_FIELDS = frozenset({4, 5, 6, 7, 10, 11})
"""float_data, int32_data, string_data, int64_data, double_data, uint64_data of TensorProto."""


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """One tensor of the file. ``data`` are its raw little-endian bytes in row-major order, read-only."""

    name: str
    dims: tuple[int, ...]
    data_type: int
    data: Bytes
    place: Place = "initializer"

    @property
    def numel(self) -> int:
        return prod(self.dims)

    @property
    def nbytes(self) -> int:
        return int(self.data.size)


@dataclass(frozen=True, eq=False)
class StoredNode:
    """One node. ``tensors`` are those in its attributes."""

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[StoredTensor, ...] = ()
    subgraphs: tuple["StoredGraph", ...] = ()
    ints: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Integer attributes by name."""


@dataclass(eq=False)
class StoredGraph:
    """One graph; ``inputs`` and ``outputs`` are value names."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    initializers: list[StoredTensor] = field(default_factory=list)
    nodes: list[StoredNode] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """The main graph and the bodies of the model's local functions."""

    graph: StoredGraph
    functions: tuple[StoredGraph, ...] = ()

    def graphs(self) -> Iterator[StoredGraph]:
        """Every graph of the file: the main one, its subgraphs, and function bodies."""
        pending = [self.graph, *self.functions]
        while pending:
            graph = pending.pop(0)
            yield graph
            pending.extend(subgraph for node in graph.nodes for subgraph in node.subgraphs)

    def tensors(self) -> Iterator[StoredTensor]:
        """Every tensor of the file, initializers and attributes alike."""
        for graph in self.graphs():
            yield from graph.initializers
            for node in graph.nodes:
                yield from node.tensors


def read_onnx(path: Path) -> OnnxFile:
    """Map and walk the file. Raises MalformedFile for broken protobuf, sizes that disagree with dims, external data
    outside the file's directory, and training graphs."""
    return _Reader(path).read()


@dataclass(eq=False)
class _Attribute:
    name: str = ""
    tensors: list[StoredTensor] = field(default_factory=list)
    subgraphs: list[StoredGraph] = field(default_factory=list)
    ints: list[int] = field(default_factory=list)


class _Reader:
    def __init__(self, path: Path) -> None:
        self.directory = path.parent.resolve()
        self.buffer = _map(path)
        self.whole = np.frombuffer(self.buffer, np.uint8)
        self.external: dict[str, Bytes] = {}

    def read(self) -> OnnxFile:
        graph, functions = StoredGraph(), []
        for number, _, start, end in fields(self.buffer, 0, len(self.buffer)):
            if number == 7:
                self._graph(start, end, graph)
            elif number == 25:
                functions.append(self._function(start, end))
            elif number == 20:
                raise MalformedFile("the file holds training information, which may carry weights")
        return OnnxFile(graph, tuple(functions))

    def _graph(self, start: int, end: int, graph: StoredGraph) -> StoredGraph:
        for item in fields(self.buffer, start, end):
            number, _, first, last = item
            if number == 1:
                graph.nodes.append(self._node(first, last))
            elif number == 5:
                graph.initializers.append(self._tensor(first, last))
            elif number == 15:
                graph.initializers.extend(self._sparse(first, last, "sparse_initializer"))
            elif number in (11, 12):
                (graph.inputs if number == 11 else graph.outputs).append(self._value_name(first, last))
        return graph

    def _function(self, start: int, end: int) -> StoredGraph:
        graph = StoredGraph()
        for item in fields(self.buffer, start, end):
            if item[0] == 7:
                graph.nodes.append(self._node(item[2], item[3]))
        return graph

    def _value_name(self, start: int, end: int) -> str:
        names = [text(self.buffer, item) for item in fields(self.buffer, start, end) if item[0] == 1]
        return names[-1] if names else ""

    def _node(self, start: int, end: int) -> StoredNode:
        words: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
        attributes = []
        for item in fields(self.buffer, start, end):
            if item[0] in words:
                words[item[0]].append(text(self.buffer, item))
            elif item[0] == 5:
                attributes.append((item[2], item[3]))
        op_type = (words[4] or [""])[-1]
        outputs = tuple(words[2])
        name = (words[3] or [""])[-1]
        tensors: list[StoredTensor] = []
        subgraphs: list[StoredGraph] = []
        ints: dict[str, tuple[int, ...]] = {}
        for first, last in attributes:
            attribute = self._attribute(first, last, outputs[0] if outputs else name, op_type == "Constant")
            tensors += attribute.tensors
            subgraphs += attribute.subgraphs
            ints[attribute.name] = tuple(attribute.ints)
        return StoredNode(op_type, name, tuple(words[1]), outputs, tuple(tensors), tuple(subgraphs), ints)

    def _attribute(self, start: int, end: int, value: str, constant: bool) -> "_Attribute":
        """``value`` names the node's first output, after which tensors are called. Lists of floats count as tensors,
        and so do the scalars of Constant nodes."""
        found = _Attribute()
        floats: list[Bytes] = []
        scalar = False
        for item in fields(self.buffer, start, end):
            number, wire_type, first, last = item
            if number == 1:
                found.name = text(self.buffer, item)
            elif number in (5, 10):
                found.tensors.append(self._tensor(first, last))
            elif number in (22, 23):
                found.tensors.extend(self._sparse(first, last, "attribute"))
            elif number in (6, 11):
                found.subgraphs.append(self._graph(first, last, StoredGraph()))
            elif number == 7 or (number == 2 and constant and wire_type == FIXED32):
                floats.append(self.whole[first:last])
                scalar = number == 2
            elif number in (3, 8):
                found.ints += repeated_ints(self.buffer, item)
        label = value if constant else f"{value}:{found.name}"
        found.tensors = [replace(tensor, name=label, place="attribute") for tensor in found.tensors]
        if floats:
            data = np.concatenate(floats)
            dims = () if scalar else (data.size // 4,)
            found.tensors.append(StoredTensor(label, dims, FLOAT, data, "attribute"))
        return found

    def _sparse(self, start: int, end: int, place: Place) -> list[StoredTensor]:
        found = [self._tensor(item[2], item[3]) for item in fields(self.buffer, start, end) if item[0] in (1, 2)]
        return [replace(tensor, place=place) for tensor in found]

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
        return StoredTensor(name, tuple(dims), data_type, data)

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
