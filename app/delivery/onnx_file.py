"""What the service reads of an ONNX file itself: its graph without weights, for viewers, and where its weights lie.

It is read as protobuf's wire format (developers.google.com/protocol-buffers/docs/encoding), so that the bytes of
weights are skipped and neither onnx nor numpy is needed. Field numbers are those of onnx.proto.

A conversion's process wrote the file and may have lied: its fields, and the bytes of it that are kept, are counted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from app.targets.onnx.writing.protobuf import len_field

GRAPH = 7
"""ModelProto.graph"""
INITIALIZER = 5
"""GraphProto.initializer"""
DIMS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL_DATA = 1, 2, 8, 9, 13
"""TensorProto's fields."""
DESCRIBING = frozenset({1, 2, 8, 12})
"""Fields of a TensorProto that are not its values: dims, data_type, name, doc_string."""
VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}
"""Wire types of fixed length, and their bytes."""
LONGEST_VARINT = 10
BLOCK = 256 << 10
"""Bytes that are read at a time; weights longer than this are skipped."""
MOST = 16 << 20
"""Bytes of a graph that a viewer can still be given."""
MOST_FIELDS = 1 << 18
"""Of a model, its graph and its initializers; a tensor has about five, a node is one."""
LONGEST_NAME = 64 << 10
"""Bytes."""
MOST_DIMS = 64
AT_A_TIME = 1 << 10
"""Fields after which others have a turn: reading them takes about 10 ms."""

Read = Callable[[int, int], Awaitable[bytes]]
"""Bytes from a first to before a last place in the file."""


class NotReadable(Exception):
    """The bytes are no ONNX file, or its graph has more than MOST bytes or MOST_FIELDS fields."""


@dataclass
class _Source:
    """The file, read in blocks; the one read last is kept."""

    read: Read
    size: int
    kept: int = 0
    """Bytes that were asked for to be kept."""
    fields: int = 0
    _begin: int = 0
    _block: bytes = field(default=b"", repr=False)

    async def between(self, start: int, end: int) -> bytes:
        if end > self.size or end - start > MOST:
            raise NotReadable(f"{end - start} bytes at {start} of {self.size}")
        if not self._begin <= start <= end <= self._begin + len(self._block):
            self._begin, self._block = start, await self.read(start, min(max(end, start + BLOCK), self.size))
        found = self._block[start - self._begin : end - self._begin]
        if len(found) != end - start:
            raise NotReadable("the file ends early")
        return found

    async def keep(self, start: int, end: int) -> bytes:
        """Bytes that stay in memory until all are there. Raises NotReadable beyond MOST of them."""
        self.kept += end - start
        if self.kept > MOST:
            raise NotReadable(f"the graph has more than {MOST} bytes")
        return await self.between(start, end)

    async def count_field(self) -> None:
        """Raises NotReadable beyond MOST_FIELDS."""
        self.fields += 1
        if self.fields > MOST_FIELDS:
            raise NotReadable(f"the graph has more than {MOST_FIELDS} fields")
        if self.fields % AT_A_TIME == 0:
            await asyncio.sleep(0)


@dataclass(frozen=True)
class _Field:
    """One field of a message: its number, and where it begins, where its content begins, where it ends."""

    number: int
    wire: int
    start: int
    content: int
    end: int


async def weight_free(read: Read, size: int) -> bytes:
    """The model with every initializer's name, shape and type, and none of their values. Raises NotReadable."""
    source = _Source(read, size)
    pieces: list[bytes] = []
    async for each in _fields(source, 0, size):
        if each.number == GRAPH and each.wire == BYTES:
            pieces.append(len_field(GRAPH, await _graph(source, each)))
        else:
            pieces.append(await source.keep(each.start, each.end))
    return b"".join(pieces)


@dataclass(frozen=True)
class StoredTensor:
    """An initializer whose bytes lie in the file from ``start`` to before ``end``; ``data_type`` is onnx.proto's."""

    name: str
    shape: tuple[int, ...]
    data_type: int
    start: int
    end: int


async def stored_tensors(read: Read, size: int) -> tuple[StoredTensor, ...]:
    """The initializers whose bytes the file itself holds, as Recast writes them. Raises NotReadable."""
    source = _Source(read, size)
    found: list[StoredTensor] = []
    async for graph in _fields(source, 0, size):
        if graph.number == GRAPH and graph.wire == BYTES:
            async for each in _fields(source, graph.content, graph.end):
                if each.number == INITIALIZER and each.wire == BYTES:
                    tensor = await _stored(source, each)
                    found += [tensor] if tensor is not None else []
    return tuple(found)


async def _stored(source: _Source, tensor: _Field) -> StoredTensor | None:
    """None for one whose values are in another file or written as numbers, as small ones may be."""
    name, data_type, raw = "", 0, None
    shape: list[int] = []
    async for each in _fields(source, tensor.content, tensor.end):
        if each.number == NAME and each.end - each.content <= LONGEST_NAME:
            name = (await source.between(each.content, each.end)).decode("utf-8", "replace")
        elif each.number == DATA_TYPE:
            data_type, _ = await _varint(source, each.content, each.end)
        elif each.number == DIMS:
            place = each.content
            while place < each.end and len(shape) < MOST_DIMS:
                extent, place = await _varint(source, place, each.end)
                shape.append(extent)
        elif each.number == RAW_DATA:
            raw = each
    return None if raw is None else StoredTensor(name, tuple(shape), data_type, raw.content, raw.end)


async def _graph(source: _Source, graph: _Field) -> bytes:
    pieces: list[bytes] = []
    async for each in _fields(source, graph.content, graph.end):
        if each.number == INITIALIZER and each.wire == BYTES:
            pieces.append(len_field(INITIALIZER, await _tensor(source, each)))
        else:
            pieces.append(await source.keep(each.start, each.end))
    return b"".join(pieces)


async def _tensor(source: _Source, tensor: _Field) -> bytes:
    fields = [each async for each in _fields(source, tensor.content, tensor.end) if each.number in DESCRIBING]
    return b"".join([await source.keep(each.start, each.end) for each in fields])


async def _fields(source: _Source, start: int, end: int) -> AsyncIterator[_Field]:
    place = start
    while place < end:
        tag, content = await _varint(source, place, end)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            _, after = await _varint(source, content, end)
        elif wire == BYTES:
            length, content = await _varint(source, content, end)
            after = content + length
        elif wire in FIXED:
            after = content + FIXED[wire]
        else:
            raise NotReadable(f"wire type {wire} at {place}")
        if after > end:
            raise NotReadable(f"a field at {place} ends beyond its message")
        await source.count_field()
        yield _Field(number, wire, place, content, after)
        place = after


async def _varint(source: _Source, place: int, end: int) -> tuple[int, int]:
    """The number at ``place`` and where it ends."""
    value = 0
    for count, byte in enumerate(await source.between(place, min(place + LONGEST_VARINT, end))):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise NotReadable(f"no number at {place}")
