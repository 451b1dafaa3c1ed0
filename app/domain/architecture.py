"""An architecture: a named builder of a module, with an options schema and a signature."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field
from recast_plugins.signature import (
    Axis,
    Distribution,
    DType,
    InputSpec,
    Integers,
    Mask,
    Normal,
    OutputSpec,
    Signature,
    Uniform,
)

from app.domain.base import Value
from app.domain.conversion import TARGET_NAMES, TargetName

__all__ = [
    "ArchitectureDescription",
    "Axis",
    "BrokenPlugin",
    "DType",
    "Distribution",
    "InputSpec",
    "Integers",
    "Mask",
    "Normal",
    "OutputSpec",
    "Signature",
    "Uniform",
]


class ArchitectureDescription(Value):
    """What a client may know of an architecture without torch being imported: one entry of the catalog."""

    name: str
    family: str
    library: str
    library_version: str
    summary: str = ""
    options_schema: dict[str, Any] = Field(default_factory=dict)
    signature: Signature
    targets: tuple[TargetName, ...] = TARGET_NAMES
    lacking: dict[TargetName, str] = Field(default_factory=dict)
    """Further targets, which the installation lacks, and the command that adds each."""
    source_digest: str | None = None
    """sha256 of a plug-in's source; None for a library, whose version says as much."""
    plugin: str | None = None
    """The plug-in that offers it; None for a library."""
    recipe: str | None = None
    """Digest of the recipe that it is made by; None for what libraries and plug-ins offer themselves."""

    def without(self, lacking: Mapping[TargetName, str]) -> Self:
        """The same without these targets, which it then says are lacking."""
        if not lacking:
            return self
        left = tuple(target for target in self.targets if target not in lacking)
        return self.model_copy(update={"targets": left, "lacking": {**self.lacking, **lacking}})


class BrokenPlugin(Value):
    """A plug-in that could not be loaded, and why. It offers no architecture."""

    name: str
    error: str
    architectures: tuple[str, ...] = ()
    """Names that its source seems to declare."""
