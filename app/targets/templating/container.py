"""One file on disk per template: a JSON header and named blobs. The format is described in docs/templates.md.

::

    8 bytes   magic, b"RECASTT1"
    8 bytes   length of the header, unsigned little-endian
    header    canonical JSON (sorted keys, no spaces, UTF-8); "blobs" maps a name to [start, end)
    blobs     one after the other, without gaps, in the order of their start; offsets count from the end of the header
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAGIC = b"RECASTT1"
FORMAT_VERSION = 3
"""Part of every template key: a new version of the format, or of what is folded, lowered or refused, makes old ones
unreachable."""


class BrokenTemplate(ValueError):
    """The file is not a template of this version, or it is damaged."""


def canonical_json(value: object) -> bytes:
    """JSON with one spelling for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def write_container(path: Path, header: Mapping[str, Any], blobs: Mapping[str, bytes]) -> None:
    """Write a template file; the same header and blobs give the same bytes."""
    table: dict[str, list[int]] = {}
    end = 0
    for name, blob in blobs.items():
        table[name] = [end, end + len(blob)]
        end += len(blob)
    text = canonical_json({**header, "blobs": table})
    with path.open("wb") as file:
        file.write(MAGIC + len(text).to_bytes(8, "little") + text)
        file.writelines(blobs.values())


def read_container(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Header and blobs of a template file.

    Raises BrokenTemplate for another magic, a header that is not JSON, and blobs that leave gaps, overlap, or do not
    end where the file ends.
    """
    content = path.read_bytes()
    if content[:8] != MAGIC:
        raise BrokenTemplate(f"{path.name} does not begin with {MAGIC!r}")
    body = 16 + int.from_bytes(content[8:16], "little")
    try:
        header = json.loads(content[16:body])
        table = header.pop("blobs")
        ordered = sorted(table.items(), key=lambda item: item[1])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BrokenTemplate(f"{path.name} has no readable header: {error}") from error
    blobs: dict[str, bytes] = {}
    position = body
    for name, (start, end) in ordered:
        if body + start != position or end < start:
            raise BrokenTemplate(f"blob {name!r} of {path.name} does not begin where the one before it ends")
        position = body + end
        blobs[name] = content[body + start : position]
    if position != len(content):
        raise BrokenTemplate(f"{path.name} holds {len(content)} bytes, its header promises {position}")
    return header, blobs
