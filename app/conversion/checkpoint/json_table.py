"""JSON out of a file: a header of safetensors, an index of shards, a table of weights."""

import json
from typing import Any

from app.conversion.checkpoint.extent import Extent
from app.domain.errors import CorruptCheckpoint, PayloadTooLarge

MAX_TABLE = 32 << 20
"""Bytes that are read; the 100,000 tensors that Recast reads take about 15 of a safetensors header."""
MAX_COMMAS = 2_000_000
"""Values, by the commas between them: what parsing costs in memory. A tensor has about six of them."""


def read_table(extent: Extent, what: str, most: int = MAX_TABLE) -> dict[str, Any]:
    """The object that these bytes are in JSON (RFC 8259). Nothing may be told twice: readers take one or the other.

    ``what``: its name in messages. Raises PayloadTooLarge, CorruptCheckpoint.
    """
    if extent.size > most:
        raise PayloadTooLarge(f"{what} has {extent.size:,} bytes; at most {most:,} are read.")
    text = extent.read()
    if text.count(b",") > MAX_COMMAS:
        raise CorruptCheckpoint(f"{what} holds more values than its tensors can have.")
    try:
        table = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"{what} is not valid JSON, or names something twice.") from error
    if not isinstance(table, dict):
        raise CorruptCheckpoint(f"{what} is no JSON object.")
    return table


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key occurs twice")
    return members


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
