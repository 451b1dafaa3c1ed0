"""How the author of a plug-in declares an architecture: the ``architecture`` decorator."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from recast_plugins.signature import Signature

if TYPE_CHECKING:
    from torch import nn

MARK = "recast_architecture"
RESERVED = ("torchvision/", "timm/", "transformers/")
"""Prefixes of the names that libraries have."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)+")

Builder = TypeVar("Builder", bound="Callable[..., nn.Module]")


class OptionsRefused(ValueError):
    """The builder's annotations do not admit these options."""


@dataclass(frozen=True)
class Declaration:
    """What the decorator found out about one builder."""

    name: str
    family: str
    summary: str
    options: type[BaseModel]
    builder: "Callable[..., nn.Module]"
    declared_signature: Signature | Callable[..., Signature]
    targets: tuple[str, ...] | None
    """None: every target."""

    def values(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The builder's arguments, defaults filled in. Raises OptionsRefused."""
        try:
            values = self.options.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            raise OptionsRefused(f"{self.name}: {first['loc']}: {first['msg']}") from error
        return {name: getattr(values, name) for name in self.options.model_fields}

    def signature(self, options: Mapping[str, Any]) -> Signature:
        """The signature for these options. Raises OptionsRefused."""
        if isinstance(self.declared_signature, Signature):
            return self.declared_signature
        wanted = inspect.signature(self.declared_signature).parameters
        values = self.values(options)
        return self.declared_signature(**{name: values[name] for name in wanted})

    def construct(self, options: Mapping[str, Any]) -> "nn.Module":
        """Calls the builder with these options. Raises OptionsRefused."""
        return self.builder(**self.values(options))


def architecture(
    name: str,
    *,
    signature: Signature | Callable[..., Signature],
    family: str | None = None,
    summary: str | None = None,
    targets: tuple[str, ...] | None = None,
) -> Callable[[Builder], Builder]:
    """Declares the decorated function as the builder of the architecture ``name``, such as "acme/tagger".

    The builder returns a ``torch.nn.Module``. Its parameters are the architecture's options: each has an annotation
    that pydantic understands (give numbers their bounds: ``Annotated[int, Field(ge=1, le=4096)]``) and a default.
    ``signature`` is a Signature, or a function that returns one and whose parameters are some of the builder's.
    ``family`` is by default the first part of the name, ``summary`` the first line of the builder's docstring, and
    ``targets`` every target that the service has.
    Raises ValueError for a name that is not allowed and TypeError for parameters that cannot be options.
    """
    if not is_plugin_name(name):
        raise ValueError(f"{name!r} is not a name for a plug-in architecture: write it like 'acme/tagger'.")

    def declare(builder: Builder) -> Builder:
        options = _options_model(name, builder)
        if not isinstance(signature, Signature):
            _check_parameters(name, signature, options)
        declaration = Declaration(
            name=name,
            family=family or name.partition("/")[0],
            summary=summary or (inspect.getdoc(builder) or "").partition("\n")[0],
            options=options,
            builder=builder,
            declared_signature=signature,
            targets=targets,
        )
        setattr(builder, MARK, declaration)
        return builder

    return declare


def is_plugin_name(name: str) -> bool:
    """Whether a plug-in may give its architecture this name: lower-case, with a slash, not one of a library."""
    return len(name) <= 200 and _NAME.fullmatch(name) is not None and not name.startswith(RESERVED)


def _options_model(name: str, builder: "Callable[..., nn.Module]") -> type[BaseModel]:
    hints = get_type_hints(builder, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(builder).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}: *{parameter.name} cannot be an option; name the builder's parameters.")
        if parameter.name not in hints or parameter.default is parameter.empty:
            raise TypeError(f"{name}: parameter {parameter.name!r} needs an annotation and a default.")
        fields[parameter.name] = (hints[parameter.name], parameter.default)
    return create_model("Options", __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields)


def _check_parameters(name: str, signature: Callable[..., Signature], options: type[BaseModel]) -> None:
    strange = set(inspect.signature(signature).parameters) - set(options.model_fields)
    if strange:
        raise TypeError(f"{name}: the signature function asks for {sorted(strange)}, which the builder has not.")


def declarations(namespace: Mapping[str, Any]) -> tuple[Declaration, ...]:
    """The declarations among a module's names, in order, each once."""
    found = (getattr(value, MARK, None) for value in namespace.values() if inspect.isfunction(value))
    return tuple(dict.fromkeys(declared for declared in found if isinstance(declared, Declaration)))
