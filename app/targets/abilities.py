"""What a version of the service can do of what may be asked for, and what a conversion needs of that, as names.

Both follow from the declarations of the targets' options, so that a new option, value or target is a new name by
itself: ``onnx``, ``onnx.opset``, ``onnx.precision=int8``, ``onnx.budget.cosine``. An option at its default is no need:
older versions, which do not know it, do the same.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from app.domain.conversion import CommonOptions
from app.targets.specs import SPECS

RECIPES = "recipes"


@cache
def abilities() -> frozenset[str]:
    """Names of all that this version can do with what is installed beside it."""
    names = {RECIPES}
    for name, spec in SPECS.items():
        if spec.installing is None:
            names |= {name, *_declared(name, spec.options)}
    return frozenset(names)


def needs(options: CommonOptions, *, recipe: bool = False) -> tuple[str, ...]:
    """Names of what a worker must be able to do for a conversion with these options; of a ``recipe``."""
    names = {options.target, *_given(options.target, options)}
    if recipe:
        names.add(RECIPES)
    return tuple(sorted(names))


def understood(options: Mapping[str, Any]) -> dict[str, Any]:
    """Stored options without those that this version does not know, of whose conversions it takes only those that have
    them at their defaults."""
    spec = SPECS.get(options["target"])
    known = spec.options.model_fields if spec else options
    return {name: value for name, value in options.items() if name in known}


def _declared(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}.{name}"
        for part in _parts(field.annotation):
            if get_origin(part) is Literal:
                yield from (f"{prefix}.{name}={value}" for value in get_args(part))
            elif isinstance(part, type) and issubclass(part, BaseModel):
                yield from _declared(f"{prefix}.{name}", part)


def _parts(annotation: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _parts(part)


def _given(prefix: str, model: BaseModel) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name == "target" or value == field.get_default(call_default_factory=True):
            continue
        yield f"{prefix}.{name}"
        if isinstance(value, BaseModel):
            yield from _given(f"{prefix}.{name}", value)
        named = {v for part in _parts(field.annotation) if get_origin(part) is Literal for v in get_args(part)}
        members = value if isinstance(value, tuple) else (value,)
        yield from (f"{prefix}.{name}={one}" for one in members if isinstance(one, str) and one in named)
