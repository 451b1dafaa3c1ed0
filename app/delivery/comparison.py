"""Two artifacts side by side: which of their tensors differ, and by how much.

Equality is exact, byte for byte. The norm of a difference is that of all elements, or for large ones estimated from
pieces that are evenly spread over the tensor, so that a comparison stays a matter of about a second.
"""

import asyncio
import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from app.delivery.onnx_file import Read, StoredTensor

CHUNK = 1 << 20
"""Bytes compared at a time."""
PIECE = 1 << 13
"""Elements of one piece whose difference is measured; Python holds its lock for about a millisecond of it."""
MOST_ELEMENTS = 1 << 22
"""Elements whose differences are measured in one comparison, shared by the tensors that differ."""
FLOAT, FLOAT16, DOUBLE, BFLOAT16 = 1, 10, 11, 16
"""TensorProto.DataType"""
ITEM_BYTES: Mapping[int, int] = {FLOAT: 4, FLOAT16: 2, DOUBLE: 8, BFLOAT16: 2}

Change = Literal["same", "changed", "shape", "only_first", "only_second"]


@dataclass(frozen=True)
class Source:
    """One artifact: its tensors, and how its bytes are read."""

    tensors: Sequence[StoredTensor]
    read: Read


@dataclass(frozen=True)
class TensorChange:
    """One tensor in both artifacts. ``difference`` is the 2-norm of second − first, ``norm`` that of the first.

    Both are None for what is the same, is in one artifact only, or has another shape or type than floating point.
    ``measured`` is the share of the elements that they rest on.
    """

    name: str
    change: Change
    shape: tuple[int, ...]
    difference: float | None = None
    norm: float | None = None
    measured: float = 1.0


async def compare(first: Source, second: Source) -> tuple[TensorChange, ...]:
    """Every tensor of either, in the first one's order."""
    others = {tensor.name: tensor for tensor in second.tensors}
    pairs = [(tensor, others.pop(tensor.name, None)) for tensor in first.tensors]
    differing = {
        one.name for one, other in pairs if other and _alike(one, other) and not await _equal(first, second, one, other)
    }
    budget = MOST_ELEMENTS // max(1, len(differing))
    changes = []
    for tensor, other in pairs:
        if other is None:
            changes.append(TensorChange(tensor.name, "only_first", tensor.shape))
        elif not _alike(tensor, other):
            changes.append(TensorChange(tensor.name, "shape", tensor.shape))
        elif tensor.name in differing:
            changes.append(await _measured(first, second, tensor, other, budget))
        else:
            changes.append(TensorChange(tensor.name, "same", tensor.shape))
    return (*changes, *(TensorChange(tensor.name, "only_second", tensor.shape) for tensor in others.values()))


def _alike(one: StoredTensor, other: StoredTensor) -> bool:
    sizes = (one.end - one.start, other.end - other.start)
    return (one.shape, one.data_type) == (other.shape, other.data_type) and sizes[0] == sizes[1]


async def _equal(first: Source, second: Source, one: StoredTensor, other: StoredTensor) -> bool:
    for offset in range(0, one.end - one.start, CHUNK):
        size = min(CHUNK, one.end - one.start - offset)
        begins = (one.start + offset, other.start + offset)
        left, right = await asyncio.gather(
            first.read(begins[0], begins[0] + size), second.read(begins[1], begins[1] + size)
        )
        if left != right:
            return False
    return True


async def _measured(first: Source, second: Source, one: StoredTensor, other: StoredTensor, budget: int) -> TensorChange:
    item = ITEM_BYTES.get(one.data_type)
    elements = (one.end - one.start) // item if item else 0
    if not item or not elements:
        return TensorChange(one.name, "changed", one.shape)
    difference = norm = 0.0
    measured = 0
    for start, count in _pieces(elements, budget):
        begin, size = start * item, count * item
        left, right = await asyncio.gather(
            first.read(one.start + begin, one.start + begin + size),
            second.read(other.start + begin, other.start + begin + size),
        )
        apart, length = await asyncio.to_thread(_norms, left, right, one.data_type)
        difference, norm, measured = math.hypot(difference, apart), math.hypot(norm, length), measured + count
    share = measured / elements
    whole = math.sqrt(share)
    return TensorChange(one.name, "changed", one.shape, difference / whole, norm / whole, share)


def _pieces(elements: int, budget: int) -> Sequence[tuple[int, int]]:
    """First element and number of elements of pieces that together are all, or about ``budget``, evenly spread."""
    whole = [(start, min(PIECE, elements - start)) for start in range(0, elements, PIECE)]
    step = max(1, math.ceil(elements / max(budget, PIECE)))
    return whole[::step]


def _norms(left: bytes, right: bytes, data_type: int) -> tuple[float, float]:
    """2-norms of the difference and of the left one."""
    one, other = _floats(left, data_type), _floats(right, data_type)
    return math.dist(one, other), math.hypot(*one)


def _floats(content: bytes, data_type: int) -> Sequence[float]:
    if data_type == FLOAT16:
        return struct.unpack(f"<{len(content) // 2}e", content)
    if data_type == BFLOAT16:  # the upper half of a float32
        widened = bytearray(2 * len(content))
        widened[2::4], widened[3::4] = content[0::2], content[1::2]
        content = bytes(widened)
    return array("d" if data_type == DOUBLE else "f", content)
