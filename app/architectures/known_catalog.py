"""The descriptions of the libraries' architectures, made ahead by scripts/library-catalog for one version of each.

A worker offers them from its first moment on, seconds before the libraries are imported that could tell. When they are,
it describes them itself, and corrects what is otherwise.
"""

import json
import lzma
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from pydantic import TypeAdapter

from app.domain.architecture import ArchitectureDescription
from app.domain.conversion import TARGET_NAMES
from app.domain.versions import library_versions

FILE = "catalog.xz"
DESCRIBED_BY = ("torch", "torchvision", "timm", "transformers")
"""Libraries whose version decides what is offered, and how it is described."""

_entries = TypeAdapter(tuple[ArchitectureDescription, ...])


def packed(entries: Sequence[ArchitectureDescription]) -> bytes:
    """The descriptions, and of which versions they are; equal ones give equal bytes."""
    document = {"versions": _versions(), "entries": [_without_usual_targets(entry) for entry in entries]}
    return lzma.compress(json.dumps(document, separators=(",", ":")).encode(), preset=9)


def _without_usual_targets(entry: ArchitectureDescription) -> dict[str, Any]:
    """Those that a library's architecture has unless it says otherwise are those of the version that reads it."""
    return entry.model_dump(mode="json", exclude={"targets"} if entry.targets == TARGET_NAMES else set())


def known_catalog() -> tuple[ArchitectureDescription, ...] | None:
    """What the package brings; None where other versions are installed, or where descriptions had another form.

    Takes some tenths of a second.
    """
    try:
        document: dict[str, Any] = json.loads(lzma.decompress(_file().read_bytes()))
        return _entries.validate_python(document["entries"]) if document["versions"] == _versions() else None
    except (OSError, ValueError, lzma.LZMAError):
        return None


def _file() -> Traversable:
    return files("app.architectures.known").joinpath(FILE)


def _versions() -> dict[str, str | None]:
    return {name: library_versions().get(name) for name in DESCRIBED_BY}
