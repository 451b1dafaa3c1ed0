"""Plug-ins: architectures that are not part of a library, declared with ``recast_plugins``. See docs/plugins.md.

One is found through an entry point of the group ``recast.architectures``, or as a module in the plug-ins directory.
"""

import hashlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import recast_plugins
from pydantic import TypeAdapter
from recast_plugins.declaration import Declaration, OptionsRefused, declarations

from app.architectures.entry import Entry, Options
from app.architectures.plugin_files import FoundPlugin, find_plugins
from app.domain.architecture import BrokenPlugin
from app.domain.conversion import TARGET_NAMES, TargetName
from app.domain.errors import InvalidOptions
from app.domain.options import complete_options

Made = TypeVar("Made")

_targets = TypeAdapter(tuple[TargetName, ...])


def __getattr__(name: str) -> Any:
    """What authors imported from here before there was ``recast_plugins``: an alias for one release."""
    if name not in recast_plugins.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"Import {name} from recast_plugins.", DeprecationWarning, stacklevel=2)
    return getattr(recast_plugins, name)


class Plugins:
    """Plug-ins, each imported when one of its architectures is first asked for, or all are listed."""

    def __init__(self, found: Iterable[FoundPlugin]) -> None:
        self._waiting = {plugin.name: plugin for plugin in found}
        self._entries: dict[str, Entry] = {}
        self._broken: list[BrokenPlugin] = []

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Architectures by name. Imports every plug-in; what one raises does not hide the others."""
        for plugin in sorted(self._waiting.values(), key=lambda plugin: plugin.module is None):
            self._load(plugin)
        return self._entries

    @property
    def broken(self) -> tuple[BrokenPlugin, ...]:
        """Plug-ins that offer none because they could not be loaded, with their errors. Imports every plug-in."""
        _ = self.entries
        return tuple(self._broken)

    def find(self, name: str) -> Entry | None:
        """The architecture of that name. Imports the plug-in of its first part first, and others until it is found."""
        first = name.partition("/")[0]
        for plugin in sorted(self._waiting.values(), key=lambda plugin: plugin.name != first):
            if name in self._entries:
                break
            self._load(plugin)
        return self._entries.get(name)

    def _load(self, plugin: FoundPlugin) -> None:
        del self._waiting[plugin.name]
        try:
            self._entries.update(_entries(plugin, taken=self._entries))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the code of others raises, it is told
            self._broken.append(BrokenPlugin(name=plugin.name, error=f"{type(error).__name__}: {error}"[:500]))


def load_plugins(plugins_dir: Path | None = None, only: str | None = None) -> Plugins:
    """The plug-ins that are installed or lie in ``plugins_dir``; ``only`` the one of that name. None is imported yet.

    Raises NotADirectoryError when ``plugins_dir`` is given and is no directory.
    """
    return Plugins(plugin for plugin in find_plugins(plugins_dir) if only in (None, plugin.name))


def _module(plugin: FoundPlugin) -> ModuleType:
    if plugin.file is None:
        return importlib.import_module(plugin.module or plugin.name)
    module_name = f"recast_plugin_{plugin.name}"
    search = [str(plugin.file.parent)] if plugin.file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(module_name, plugin.file, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise ImportError(f"{plugin.file.name} is not a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _entries(plugin: FoundPlugin, taken: Iterable[str]) -> dict[str, Entry]:
    module = _module(plugin)
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


def _entry(declared: Declaration, plugin: FoundPlugin, digest: str) -> Entry:
    return Entry(
        name=declared.name,
        family=declared.family,
        library=plugin.library,
        library_version=plugin.version or digest[:12],
        summary=declared.summary,
        options_schema=declared.options.model_json_schema(),
        signature=_checked(declared.signature),
        construct=_checked(declared.construct),
        targets=_targets.validate_python(declared.targets or TARGET_NAMES),
        source_digest=digest,
        plugin=plugin.name,
    )


def _checked(make: Callable[[Options], Made]) -> Callable[[Options], Made]:
    """``make``, raising InvalidOptions for options that the builder's annotations do not admit."""

    def made(options: Options) -> Made:
        try:
            return make(options)
        except OptionsRefused as error:
            raise InvalidOptions(str(error)) from error

    return made


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
