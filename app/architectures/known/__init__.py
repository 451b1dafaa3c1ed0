"""The layouts of the libraries' architectures, found ahead by scripts/architecture-layouts for one version of each."""

import json
import lzma
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any

from app.domain.layout_file import LayoutFile, load

SUFFIX = ".json.xz"


def packed(document: dict[str, Any]) -> bytes:
    """A document of layouts as it is kept; equal ones give equal bytes."""
    return lzma.compress(json.dumps(document, separators=(",", ":")).encode(), preset=9)


def unpacked(content: bytes) -> LayoutFile:
    """Raises LZMAError or ValueError for what is not such a document."""
    return load(lzma.decompress(content))


@lru_cache(maxsize=1)
def known_layouts() -> tuple[LayoutFile, ...]:
    """What the package brings, whatever versions are installed: about a second once."""
    return tuple(_read())


def _read() -> Iterator[LayoutFile]:
    for file in sorted(files(__name__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(SUFFIX):
            yield unpacked(file.read_bytes())
