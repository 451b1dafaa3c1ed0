"""How the author of a plug-in declares an architecture: the ``architecture`` decorator."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from torch import nn

from app.architectures.entry import Options
from app.domain.architecture import Signature
from app.domain.catalog import is_plugin_name
from app.domain.conversion import TargetName
from app.domain.errors import InvalidOptions

MARK = "recast_architecture"

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class Declaration:
    """What the decorator found out about one builder."""

    name: str
    family: str
    summary: str
    options: type[BaseModel]
    builder: Callable[..., nn.Module]
    declared_signature: Signature | Callable[..., Signature]
    targets: tuple[TargetName, ...]

    def signature(self, options: Options) -> Signature:
        """The signature for these options; raises InvalidOptions."""
        if isinstance(self.declared_signature, Signature):
            return self.declared_signature
        wanted = inspect.signature(self.declared_signature).parameters
        arguments = self._arguments(options)
        return self.declared_signature(**{name: arguments[name] for name in wanted})

    def construct(self, options: Options) -> nn.Module:
        """Calls the builder with these options; raises InvalidOptions."""
        return self.builder(**self._arguments(options))

    def _arguments(self, options: Options) -> dict[str, Any]:
        try:
            values = self.options.model_validate(dict(options))
        except ValidationError as error:
            raise InvalidOptions(f"{self.name}: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
        return {name: getattr(values, name) for name in self.options.model_fields}


def architecture(
    name: str,
    *,
    signature: Signature | Callable[..., Signature],
    family: str | None = None,
    summary: str | None = None,
    targets: tuple[TargetName, ...] = ("onnx", "torchscript"),
) -> Callable[[Builder], Builder]:
    """Declares the decorated function as the builder of the architecture ``name``, such as "acme/tagger".

    The builder returns a ``torch.nn.Module``. Its parameters are the architecture's options: each has an annotation
    that pydantic understands (give numbers their bounds: ``Annotated[int, Field(ge=1, le=4096)]``) and a default.
    ``signature`` is a Signature, or a function that returns one and whose parameters are some of the builder's.
    ``family`` is by default the first part of the name, ``summary`` the first line of the builder's docstring.
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


def _options_model(name: str, builder: Callable[..., nn.Module]) -> type[BaseModel]:
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
