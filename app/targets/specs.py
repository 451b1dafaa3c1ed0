"""Every target that a conversion may name: api, cli, database and OpenAPI derive what they know of targets from here.

The names stand in ``TargetName`` (domain/conversion.py); each has a folder beside this file.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from importlib import import_module
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter

from app.domain.conversion import TARGET_NAMES, CommonOptions, TargetName
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


def default_options() -> Sequence[CommonOptions]:
    """The options of every target as they are where nothing is asked for."""
    return [spec.options.model_validate({}) for spec in SPECS.values()]


def titles() -> str:
    """In words: "ONNX and TorchScript"."""
    *others, last = (spec.title for spec in SPECS.values())
    return " and ".join(filter(None, (", ".join(others), last)))
