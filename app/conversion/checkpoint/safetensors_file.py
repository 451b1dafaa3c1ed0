"""Reading a safetensors file, memory-mapped. The format: safetensors README, "Format"."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from app.domain.errors import CorruptCheckpoint

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Tensors by name, in the file's order, and notes.

    Raises CorruptCheckpoint for a header that breaks the format: too long, not JSON, duplicate keys, unknown dtypes,
    ranges that overlap, leave holes or lead beyond the file.
    """
    _check_header(path)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return tensors, _notes(file.metadata())
    except (SafetensorError, RuntimeError, ValueError, OverflowError, AttributeError, KeyError, TypeError) as error:
        raise CorruptCheckpoint(f"The safetensors file is damaged: {error}") from error


def _check_header(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER or 8 + length > size:
            raise CorruptCheckpoint(f"The safetensors header declares {length} bytes in a file of {size}.")
        header = file.read(length)
    try:
        json.loads(header, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"The safetensors header is not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key occurs twice")
    return members


def _notes(metadata: dict[str, str] | None) -> tuple[str, ...]:
    return (
        (f"saved for framework {metadata['format']}",)
        if metadata and metadata.get("format") not in (None, "pt")
        else ()
    )
