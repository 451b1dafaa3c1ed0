"""What is kept of plug-ins' own accounts of their architectures, each made by somebody's code in another process."""

from collections.abc import Iterable

from pydantic import TypeAdapter
from recast_plugins.declaration import is_plugin_name

from app.architectures.plugin_files import FoundPlugin, names_in
from app.domain.architecture import ArchitectureDescription, BrokenPlugin
from app.domain.text import storable

MOST_BYTES = 4 << 20
"""Of JSON that describe one plug-in's architectures."""

Described = tuple[ArchitectureDescription, ...] | BrokenPlugin

_entries = TypeAdapter(tuple[ArchitectureDescription, ...])


def believed(plugin: FoundPlugin, entries: tuple[ArchitectureDescription, ...]) -> Described:
    """The entries as the plug-in's own; or, where they cannot be kept, the plug-in as a broken one."""
    strange = [entry.name for entry in entries if not is_plugin_name(entry.name)]
    if strange:
        return broken(plugin, f"{strange[0][:100]!r} is not a name for a plug-in's architecture.")
    if not entries:
        return broken(plugin, "it declares no architecture: mark a builder with @architecture.")
    size = len(_entries.dump_json(entries))
    if size > MOST_BYTES:
        return broken(plugin, f"its architectures take {size:,} bytes; at most {MOST_BYTES:,} are kept.")
    # Whose it is, and where it comes from, is known here and not its own to say.
    own = {"plugin": plugin.name, "library": plugin.library}
    return tuple(entry.model_copy(update=own) for entry in entries)


def broken(plugin: FoundPlugin, error: str) -> BrokenPlugin:
    return BrokenPlugin(name=plugin.name, error=storable(error, 500), architectures=names_in(plugin))


def assembled(
    libraries: tuple[ArchitectureDescription, ...], plugins: Iterable[Described]
) -> tuple[tuple[ArchitectureDescription, ...], tuple[BrokenPlugin, ...]]:
    """All entries, plug-ins first, and the broken plug-ins; of two plug-ins that take one name the second is broken."""
    entries: dict[str, ArchitectureDescription] = {}
    failed: list[BrokenPlugin] = []
    for described in plugins:
        if isinstance(described, BrokenPlugin):
            failed.append(described)
            continue
        names = [entry.name for entry in described]
        taken = next((name for name in names if name in entries or names.count(name) > 1), None)
        if taken is None:
            entries.update((entry.name, entry) for entry in described)
        else:
            error = f"ValueError: the name {taken!r} is already taken."
            failed.append(BrokenPlugin(name=described[0].plugin or "", error=error))
    return (*entries.values(), *libraries), tuple(failed)
