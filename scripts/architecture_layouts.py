"""Finds the layouts of all architectures of a library and keeps them with the package.

The doctor knows architectures by them. To be run again when a library's version changes; some minutes of processor time
for each. Architectures whose layouts are kept already for this version are not looked at again without --anew. Each
architecture is looked at in a process of its own, whose memory is bounded and goes with it.
"""

import argparse
import importlib.metadata
import resource
import sys
import time
import warnings
from importlib.resources import files
from pathlib import Path

import torch

from app.architectures.known import SUFFIX, packed, unpacked
from app.architectures.layouts import layouts_of
from app.architectures.registry import Registry, load_registry
from app.domain.errors import RecastError
from app.domain.layout import Layout
from app.domain.layout_file import dump
from app.processes import die_with_parent
from scripts.own_process import apart

LIBRARIES = ("torchvision", "timm", "transformers")
SAVED_EVERY = 60.0
"""Seconds."""
MOST_MEMORY = 6 << 30
"""Bytes of one architecture's process."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="*", default=LIBRARIES)
    parser.add_argument("--anew", action="store_true", help="also what is kept already")
    told = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    registry = load_registry()
    for library in told.libraries:
        _find(registry, library, anew=told.anew)


def _find(registry: Registry, library: str, *, anew: bool) -> None:
    path = Path(str(files("app.architectures.known").joinpath(library + SUFFIX)))
    version = importlib.metadata.version(library)
    found = {} if anew else _kept(path, version)
    names = [name for name in registry.names() if name.startswith(f"{library}/")]
    saved = time.monotonic()
    for count, name in enumerate(names, 1):
        if name in found:
            continue
        told: tuple[Layout, ...] | str
        try:
            told = apart(_layouts, registry, name)
        except ChildProcessError as crash:
            told = str(crash)
        if isinstance(told, str):
            print(f"{name}: {told}", file=sys.stderr)
        else:
            found[name] = told
        if time.monotonic() - saved > SAVED_EVERY:
            _save(path, library, version, [layout for name in names for layout in found.get(name, ())])
            saved = time.monotonic()
            print(f"{library}: {count} of {len(names)}", file=sys.stderr, flush=True)
    _save(path, library, version, [layout for name in names for layout in found.get(name, ())])


def _layouts(registry: Registry, name: str) -> tuple[Layout, ...] | str:
    """The layouts, or why there are none; for a process of its own, which it bounds."""
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    try:
        return layouts_of(registry, name)
    except (RecastError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"


def _kept(path: Path, version: str) -> dict[str, tuple[Layout, ...]]:
    if not path.exists():
        return {}
    file = unpacked(path.read_bytes())
    kept: dict[str, tuple[Layout, ...]] = {}
    for number, head in enumerate(file.heads if file.version == version else ()):
        kept[head.architecture] = (*kept.get(head.architecture, ()), file.layout(number))
    return kept


def _save(path: Path, library: str, version: str, layouts: list[Layout]) -> None:
    path.write_bytes(packed(dump(library, version, layouts)))


if __name__ == "__main__":
    main()
