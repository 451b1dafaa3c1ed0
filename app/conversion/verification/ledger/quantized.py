"""Weights in 8 bits: their levels and steps, computed anew from the uploaded tensor and compared with those on disk.

A channel's step is its largest magnitude / 127 (1 where all is 0), a level the nearest whole number of steps, ties to
even, stored with 128 for zero. What a file holds is then within half a step of what was uploaded, and nothing else
passes. numpy here, torch where the file was written: no line of code has a part in both.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.conversion.verification.ledger.books import Books
from app.conversion.verification.ledger.sources import raw_bytes, same_bytes
from app.targets.artifact import StoredTensor
from app.targets.claims import Claim

_ZERO, _LEVELS = np.uint8(128), np.float32(127)
_BLOCK = 1 << 22
"""Elements compared at a time, so that memory beside the weights stays bounded."""


def check_quantized(books: Books, stored: StoredTensor, claim: Claim, value: Tensor) -> str | None:
    """Enter levels or steps of ``value``, whose channels lie along ``claim.axis``; or say what of them is not so."""
    assert claim.axis is not None
    made_of = ", ".join(claim.tensors)
    if value.dtype != torch.float32:
        return f"{made_of} is {value.dtype}, of which there are no 8 bits"
    channels = np.moveaxis(value.detach().numpy(), claim.axis, 0)
    steps = _steps(channels)
    if claim.kind == "scale":
        if stored.dtype != torch.float32 or not same_bytes(raw_bytes(torch.from_numpy(steps)), stored.data):
            return f"its scales are not those of {made_of}"
        books.explain(stored, "fold", claim.tensors, "the steps of its 8 bits, one for each channel")
        return None
    if stored.dtype != torch.uint8 or stored.dims != tuple(value.shape):
        return f"it is not of the shape of {made_of} in 8 bits"
    levels = np.moveaxis(stored.data.reshape(stored.dims), claim.axis, 0)
    if not all(np.array_equal(_levels(channels[at], steps[at]), levels[at]) for at in _blocks(channels)):
        return f"its levels are not those of {made_of}"
    detail = "in 8 bits, each element within half a step of its channel"
    source = books.sources.by_name[claim.tensors[0]]
    if len(claim.tensors) == 1 and value.numel() == source.tensor.numel():
        books.carry(stored, source, "quantized", detail)
    else:
        books.explain(stored, "fold", claim.tensors, detail)
        books.fold(claim.tensors, stored, detail)
    return None


def _steps(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = channels.reshape(channels.shape[0], -1)
    steps: NDArray[np.float32] = np.maximum(flat.max(1, initial=0), -flat.min(1, initial=0)) / _LEVELS
    steps[~(steps > 0)] = 1
    return steps


def _levels(channels: NDArray[np.float32], steps: NDArray[np.float32]) -> NDArray[np.uint8]:
    along = (-1, *(1 for _ in channels.shape[1:]))
    levels = np.rint(channels / steps.reshape(along))
    found: NDArray[np.uint8] = (np.clip(levels, -_LEVELS, _LEVELS) + np.float32(_ZERO)).astype(np.uint8)
    return found


def _blocks(channels: NDArray[np.float32]) -> Iterator[slice]:
    at_once = max(1, _BLOCK // max(1, channels[0].size if channels.shape[0] else 1))
    return (slice(start, start + at_once) for start in range(0, channels.shape[0], at_once))
