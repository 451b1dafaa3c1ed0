"""Protocol Buffers' wire format, read in place: fields as offsets into a buffer, nothing copied, nothing interpreted.

Source: https://protobuf.dev/programming-guides/encoding/. A field is a varint key (number << 3 | wire type) and a
value; the value of a length-delimited field (a message, string, bytes or packed list) is reported as the span of its
bytes, so that a weight of any size costs a few steps.
"""

from collections.abc import Iterator
from mmap import mmap

from app.targets.artifact import MalformedFile

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 70
"""Bits after which a varint is malformed: ten groups of seven."""

Buffer = bytes | mmap
Field = tuple[int, int, int, int]
"""(field number, wire type, start, end); for a varint its unsigned value stands in place of ``start``."""


def read_varint(buffer: Buffer, position: int, end: int) -> tuple[int, int]:
    """The unsigned varint at ``position`` and the position after it. Raises MalformedFile if it runs past ``end``."""
    value = shift = 0
    while position < end and shift < _LONGEST_VARINT:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise MalformedFile(f"a varint does not end before byte {end}")


def fields(buffer: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``buffer[start:end]``, in file order. Raises MalformedFile."""
    position = start
    while position < end:
        key, position = read_varint(buffer, position, end)
        wire_type = key & 7
        if wire_type == VARINT:
            value, position = read_varint(buffer, position, end)
            yield key >> 3, VARINT, value, position
            continue
        if wire_type == DELIMITED:
            size, position = read_varint(buffer, position, end)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise MalformedFile(f"wire type {wire_type} at byte {position}")
        if position + size > end:
            raise MalformedFile(f"a field of {size} bytes at byte {position} runs past byte {end}")
        yield key >> 3, wire_type, position, position + size
        position += size


def signed(value: int) -> int:
    """An int64 or int32 from its unsigned varint (two's complement in 64 bits)."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def repeated_ints(buffer: Buffer, field: Field) -> list[int]:
    """The signed integers of one field of a repeated varint, packed or not."""
    _, wire_type, start, end = field
    if wire_type == VARINT:
        return [signed(start)]
    values = []
    while start < end:
        value, start = read_varint(buffer, start, end)
        values.append(signed(value))
    return values


def text(buffer: Buffer, field: Field) -> str:
    """The string of a length-delimited field. Bytes that are not UTF-8 are kept as surrogates."""
    return buffer[field[2] : field[3]].decode("utf-8", "surrogateescape")
