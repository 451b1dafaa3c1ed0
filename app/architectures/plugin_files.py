"""Which plug-ins there are, told without importing one of them, and without torch."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

ENTRY_POINTS = "recast.architectures"
_DECLARATION = re.compile(r"""@[\w.]*architecture\(\s*["']([a-z0-9_./-]{1,200})["']""")


@dataclass(frozen=True)
class FoundPlugin:
    """An installed plug-in (``module``), or one that lies in the plug-ins directory (``file``)."""

    name: str
    library: str
    version: str | None
    """None: the digest of the source stands for it."""
    module: str | None = None
    file: Path | None = None


def find_plugins(directory: Path | None) -> tuple[FoundPlugin, ...]:
    """Installed plug-ins, then those of the directory; of one name the first only.

    Raises NotADirectoryError when ``directory`` is given and is no directory.
    """
    by_name: dict[str, FoundPlugin] = {}
    for plugin in (*_installed(), *_in_directory(directory)):
        by_name.setdefault(plugin.name, plugin)
    return tuple(by_name.values())


def state_of(directory: Path | None) -> frozenset[tuple[str, int, int]]:
    """Path, time of change and size of every Python file below the directory: another state, another catalog."""
    if directory is None:
        return frozenset()
    found = set()
    for folder, _, names in os.walk(directory):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                try:
                    known = os.stat(path)
                except FileNotFoundError:
                    continue
                found.add((path, known.st_mtime_ns, known.st_size))
    return frozenset(found)


def names_in(plugin: FoundPlugin) -> tuple[str, ...]:
    """The names that the source of a plug-in of the directory seems to declare; the source is read, not run."""
    if plugin.file is None:
        return ()
    files = sorted(plugin.file.parent.rglob("*.py")) if plugin.file.name == "__init__.py" else [plugin.file]
    names: dict[str, None] = {}
    for file in files[:100]:
        names.update(dict.fromkeys(_DECLARATION.findall(file.read_text(errors="replace")[: 1 << 20])))
    return tuple(names)[:100]


def _installed() -> Iterator[FoundPlugin]:
    for point in sorted(entry_points(group=ENTRY_POINTS)):
        distribution = point.dist
        yield FoundPlugin(
            name=point.name,
            library=distribution.name if distribution else point.name,
            version=distribution.version if distribution else None,
            module=point.module,
        )


def _in_directory(directory: Path | None) -> Iterator[FoundPlugin]:
    if directory is None:
        return
    if not directory.is_dir():
        raise NotADirectoryError(f"The plug-ins directory {directory} does not exist.")
    for path in sorted(directory.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix == ".py" and file.is_file() and not path.name.startswith(("_", ".")):
            yield FoundPlugin(name=path.stem, library="plugin", version=None, file=file)
