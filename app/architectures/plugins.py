"""Plug-ins: architectures that are not part of a library. See docs/plugins.md.

A plug-in is a Python module that marks builders with ``@architecture``::

    from app.architectures.plugins import InputSpec, Signature, architecture

    @architecture("acme/scorer", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 16)),)))
    def scorer(hidden: Annotated[int, Field(ge=1, le=4096)] = 64) -> nn.Module:
        return nn.Sequential(nn.Linear(16, hidden), nn.ReLU(), nn.Linear(hidden, 1))

It is found through an entry point of the group ``recast.architectures``, or as a module in the plug-ins directory.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from pydantic import Field

from app.architectures.declaration import Declaration, architecture, declarations
from app.architectures.entry import Entry
from app.domain.architecture import (
    Axis,
    BrokenPlugin,
    InputSpec,
    Integers,
    Mask,
    Normal,
    OutputSpec,
    Signature,
    Uniform,
)
from app.domain.options import complete_options

__all__ = [
    "Axis",
    "Field",
    "InputSpec",
    "Integers",
    "Mask",
    "Normal",
    "OutputSpec",
    "Plugins",
    "Signature",
    "Uniform",
    "architecture",
    "load_plugins",
]

ENTRY_POINTS = "recast.architectures"


@dataclass(frozen=True)
class Plugins:
    """Architectures by name, and the plug-ins that offer none because they could not be loaded."""

    entries: dict[str, Entry]
    broken: tuple[BrokenPlugin, ...] = ()


@dataclass(frozen=True)
class _Plugin:
    name: str
    load: Callable[[], ModuleType]
    library: str
    version: str | None
    """None: the digest of the source stands for it."""


def load_plugins(plugins_dir: Path | None = None) -> Plugins:
    """Imports every installed plug-in and every module of ``plugins_dir``; what one raises does not hide the others.

    Raises NotADirectoryError when ``plugins_dir`` is given and is no directory.
    """
    entries: dict[str, Entry] = {}
    broken: list[BrokenPlugin] = []
    for plugin in (*_installed(), *_in_directory(plugins_dir)):
        try:
            entries.update(_entries(plugin, taken=entries))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the code of others raises, it is told
            broken.append(BrokenPlugin(name=plugin.name, error=f"{type(error).__name__}: {error}"[:500]))
    return Plugins(entries, tuple(broken))


def _installed() -> Iterator[_Plugin]:
    for point in sorted(entry_points(group=ENTRY_POINTS)):
        distribution = point.dist
        yield _Plugin(
            name=point.name,
            load=_loader(point),
            library=distribution.name if distribution else point.name,
            version=distribution.version if distribution else None,
        )


def _loader(point: EntryPoint) -> Callable[[], ModuleType]:
    return lambda: importlib.import_module(point.module)


def _in_directory(directory: Path | None) -> Iterator[_Plugin]:
    if directory is None:
        return
    if not directory.is_dir():
        raise NotADirectoryError(f"The plug-ins directory {directory} does not exist.")
    for path in sorted(directory.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix == ".py" and file.is_file() and not path.name.startswith(("_", ".")):
            yield _Plugin(name=path.stem, load=_file_loader(path.stem, file), library="plugin", version=None)


def _file_loader(name: str, file: Path) -> Callable[[], ModuleType]:
    def load() -> ModuleType:
        module_name = f"recast_plugin_{name}"
        search = [str(file.parent)] if file.name == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(module_name, file, submodule_search_locations=search)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file.name} is not a Python module.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
        return module

    return load


def _entries(plugin: _Plugin, taken: Iterable[str]) -> dict[str, Entry]:
    module = plugin.load()
    found = declarations(vars(module))
    if not found:
        raise LookupError("it declares no architecture: mark a builder with @architecture.")
    names = [declared.name for declared in found]
    twice = [name for name in names if name in taken or names.count(name) > 1]
    if twice:
        raise ValueError(f"the name {twice[0]!r} is already taken.")
    digest = _source_digest(module)
    entries = {declared.name: _entry(declared, plugin, digest) for declared in found}
    for entry in entries.values():
        entry.description(complete_options(entry.options_schema, {}))  # what cannot be listed is broken
    return entries


def _entry(declared: Declaration, plugin: _Plugin, digest: str) -> Entry:
    return Entry(
        name=declared.name,
        family=declared.family,
        library=plugin.library,
        library_version=plugin.version or digest[:12],
        summary=declared.summary,
        options_schema=declared.options.model_json_schema(),
        signature=declared.signature,
        construct=declared.construct,
        targets=declared.targets,
        source_digest=digest,
    )


def _source_digest(module: ModuleType) -> str:
    """sha256 over the plug-in's Python files: the module's own, or all of the package it belongs to."""
    top = sys.modules[module.__name__.partition(".")[0]]
    locations = [Path(location) for location in getattr(top, "__path__", ())]
    files = sorted(file for location in locations for file in location.rglob("*.py"))
    digest = hashlib.sha256()
    for file in files or [Path(str(module.__file__))]:
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
