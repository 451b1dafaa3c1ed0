"""The catalog: what the service knows of its architectures where torch is not imported."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from recast_plugins.declaration import is_plugin_name

from app.domain.architecture import ArchitectureDescription, BrokenPlugin
from app.domain.errors import Unavailable, UnknownArchitecture
from app.domain.options import check_options

NEAREST = 5
"""How many similar names an unknown name is answered with."""

LEAST_DIGEST = 8
"""Characters of a digest that tell a version."""


class Catalog:
    """Descriptions by name, in the order given. Names are unique."""

    def __init__(
        self,
        entries: Iterable[ArchitectureDescription],
        broken: Iterable[BrokenPlugin] = (),
        undescribed: Iterable[str] = (),
    ) -> None:
        """``undescribed``: plug-ins of which is not known yet what they offer."""
        self._entries = {entry.name: entry for entry in entries}
        self._versions: dict[str, list[ArchitectureDescription]] = {}
        self.broken = tuple(broken)
        self.undescribed = tuple(undescribed)

    def __len__(self) -> int:
        return len(self._entries)

    def with_versions(self, versions: Iterable[ArchitectureDescription]) -> "Catalog":
        """The same with a project's recipes, whose versions come newest first; a name means the newest."""
        found = Catalog(self._entries.values(), self.broken, self.undescribed)
        for entry in versions:
            found._versions.setdefault(entry.name, []).append(entry)
        newest = {name: listed[0] for name, listed in found._versions.items()}
        found._entries = newest | {name: entry for name, entry in self._entries.items() if name not in newest}
        return found

    def versions(self, name: str) -> tuple[ArchitectureDescription, ...]:
        """Of a recipe, the newest first; empty for what is none."""
        return tuple(self._versions.get(name, ()))

    def find(self, name: str) -> ArchitectureDescription | None:
        """The entry of that name, or of "name@digest" that version; None without one."""
        bare, _, digest = name.partition("@")
        if len(digest) >= LEAST_DIGEST and bare in self._versions:
            return next((one for one in self._versions[bare] if (one.recipe or "").startswith(digest)), None)
        return self._entries.get(name) or self._entries.get(_untagged(name))

    def get(self, name: str) -> ArchitectureDescription:
        """The entry of that name.

        Raises UnknownArchitecture with the nearest names; Unavailable where a plug-in may still turn out to offer it.
        """
        entry = self.find(name)
        if entry is None:
            if self.undescribed and is_plugin_name(name):
                raise Unavailable(
                    f"No architecture is known as {name!r}, and these plug-ins are still being described: "
                    f"{', '.join(self.undescribed)}."
                )
            raise unknown_architecture(name, self._entries, self.broken)
        return entry

    def search(self, query: str = "", family: str | None = None) -> tuple[ArchitectureDescription, ...]:
        """Entries of the family whose name, family or summary holds every word of the query, whatever the case."""
        words = query.lower().split()
        return tuple(
            entry
            for entry in self._entries.values()
            if (family is None or entry.family == family)
            and all(word in f"{entry.name} {entry.family} {entry.summary}".lower() for word in words)
        )

    def validate_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raises UnknownArchitecture, or InvalidOptions naming what the schema does not admit."""
        check_options(name, self.get(name).options_schema, options)


def _untagged(name: str) -> str:
    """timm names published weights after the model, "timm/resnet50.a1_in1k"; the options are the model's."""
    return name.partition(".")[0] if name.startswith("timm/") else name


def unknown_architecture(name: str, known: Iterable[str], broken: Iterable[BrokenPlugin]) -> UnknownArchitecture:
    """The error for a name that is not registered; a plug-in that is broken says why."""
    shown = name if len(name) <= 100 else f"{name[:100]}..."
    for plugin in broken:
        if name in (plugin.name, *plugin.architectures) or name.startswith(f"{plugin.name}/"):
            return UnknownArchitecture(
                f"The plug-in {plugin.name!r} could not be loaded: {plugin.error}",
                hint="Its author or the operator of this server must mend it.",
                nearest=[],
            )
    nearest = nearest_names(name, known)
    hint = f"Did you mean {nearest[0]}?" if nearest else "GET /v1/architectures lists all names."
    return UnknownArchitecture(f"No architecture is registered as {shown!r}.", hint=hint, nearest=nearest)


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Registered names most like this one, best first: the same name in another library, then similar spelling."""
    wanted = name.lower()[:200]
    names = list(known)
    bare = wanted.rsplit("/", 1)[-1]
    namesakes = [candidate for candidate in names if candidate.rsplit("/", 1)[-1].lower() == bare]
    similar = get_close_matches(wanted, names, n=NEAREST, cutoff=0.5)
    if "/" not in wanted:
        by_bare = {candidate.rsplit("/", 1)[-1]: candidate for candidate in names}
        similar = [by_bare[near] for near in get_close_matches(bare, by_bare, n=NEAREST, cutoff=0.6)] or similar
    return list(dict.fromkeys([*namesakes, *similar]))[:NEAREST]
