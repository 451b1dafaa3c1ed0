"""One architecture as the registry holds it, and where architectures come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from app.domain.architecture import ArchitectureDescription, Signature
from app.domain.conversion import TARGET_NAMES, TargetName

Options = Mapping[str, Any]
"""Options of an architecture, checked against its schema and with defaults filled in."""


@dataclass(frozen=True)
class Entry:
    """A named builder. ``signature`` and ``construct`` receive checked, complete options."""

    name: str
    family: str
    library: str
    library_version: str
    summary: str
    options_schema: dict[str, Any]
    signature: Callable[[Options], Signature]
    construct: Callable[[Options], nn.Module]
    targets: tuple[TargetName, ...] = TARGET_NAMES
    source_digest: str | None = None
    plugin: str | None = None
    recipe: str | None = None
    convert: Callable[[nn.Module, Options, dict[str, Tensor]], dict[str, Tensor]] | None = None
    """The library's own conversion of files in its published layouts: their state dict to one of the module's."""

    def description(self, options: Options) -> ArchitectureDescription:
        """The entry as the catalog shows it, with the signature that these options give."""
        return ArchitectureDescription(
            name=self.name,
            family=self.family,
            library=self.library,
            library_version=self.library_version,
            summary=self.summary,
            options_schema=self.options_schema,
            signature=self.signature(options),
            targets=self.targets,
            source_digest=self.source_digest,
            plugin=self.plugin,
            recipe=self.recipe,
        )


class Source(Protocol):
    """A library of architectures: names under one prefix, each looked up without building anything."""

    prefix: str
    """What its names start with, such as "torchvision/". No two sources share one."""

    def names(self) -> tuple[str, ...]: ...

    def holds(self, name: str) -> bool:
        """Whether ``entry`` knows the name: all of ``names()``, and others where a library has several for a model."""
        ...

    def entry(self, name: str) -> Entry:
        """The entry of a name that it holds."""
        ...


def object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema that admits these properties and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False}
