"""Every target that a conversion may name: api, cli, database and OpenAPI derive what they know of targets from here.

The names stand in ``TargetName`` (domain/conversion.py); each has a folder beside this file.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from importlib import import_module
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter

from app.domain.architecture import ArchitectureDescription
from app.domain.conversion import TARGET_NAMES, CommonOptions, TargetName
from app.domain.errors import TargetNotInstalled
from app.targets.spec import TargetSpec

SPECS: Mapping[TargetName, TargetSpec] = {name: import_module(f"app.targets.{name}.spec").SPEC for name in TARGET_NAMES}
if TYPE_CHECKING:
    TargetOptions = CommonOptions
else:
    TargetOptions = Annotated[reduce(or_, (spec.options for spec in SPECS.values())), Field(discriminator="target")]
    """The options of any target, which name it; where pydantic reads or writes, all of their members count."""

OPTIONS: TypeAdapter[CommonOptions] = TypeAdapter(TargetOptions)


def known_target(name: str) -> TargetSpec | None:
    """The target of that name, as a client gives it."""
    return next((spec for spec in SPECS.values() if spec.name == name), None)


def shows_graph(name: str) -> bool:
    """Whether the api reads the graph of that target's artifacts; not of a target that this version does not know."""
    spec = known_target(name)
    return spec is not None and spec.graph_is_shown


def default_options(targets: Iterable[TargetName]) -> Sequence[CommonOptions]:
    """The options of these targets as they are where nothing is asked for."""
    return [SPECS[name].options.model_validate({}) for name in targets]


def installed(description: ArchitectureDescription) -> ArchitectureDescription:
    """The description without the targets that this installation lacks; it says how to add them."""
    commands = {name: SPECS[name].installing for name in description.targets}
    lacking = {name: command for name, command in commands.items() if command is not None}
    return description.without(lacking)


def refuse_unless_installed(name: TargetName) -> None:
    """Raise TargetNotInstalled with the command that adds the target."""
    command = SPECS[name].installing
    if command is not None:
        raise target_not_installed(SPECS[name], command)


def target_not_installed(spec: TargetSpec, command: str) -> TargetNotInstalled:
    return TargetNotInstalled(f"This installation lacks what the target {spec.name} needs.", hint=f"Add it: {command}")


def titles() -> str:
    """In words: "ONNX and TorchScript"."""
    *others, last = (spec.title for spec in SPECS.values())
    return " and ".join(filter(None, (", ".join(others), last)))
