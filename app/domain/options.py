"""Checking an architecture's options against its JSON Schema (draft 2020-12)."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any

from app.domain.errors import InvalidOptions

SHOWN = 200
"""How many characters of the client's own text an error repeats."""
LISTED = 30
"""How many options an error lists."""
COMPARED = 10
"""How many errors are compared for the one that says most."""


def check_options(name: str, schema: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises InvalidOptions that names the option at fault and what the schema admits there."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    known = sorted(schema.get("properties", {}))
    if schema.get("additionalProperties", True) is False and not schema.get("patternProperties"):
        for option in options.keys() - set(known):
            raise unknown_option(name, option, known)
    _refuse_long(name, schema, options)
    # best_match looks at every error it is given, and each costs more than the value that it is about.
    error = best_match(islice(Draft202012Validator(schema).iter_errors(dict(options)), COMPARED))
    if error is None:
        return
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        admitted = sorted(error.schema.get("properties", {}))
        unknown = next(str(key) for key in error.instance if key not in admitted)
        raise unknown_option(".".join([name, *(str(part) for part in error.absolute_path)]), unknown, admitted)
    path = ".".join(str(part) for part in error.absolute_path)
    where = f"option {path!r}" if path else "the options"
    message = error.message if len(error.message) <= SHOWN else f"{error.message[:SHOWN]}..."
    raise InvalidOptions(
        f"{name}: {where}: {message}",
        hint=f"Options of this architecture: {', '.join(known[:LISTED]) or 'none'}.",
        option=path or None,
        admitted=error.schema if path and isinstance(error.schema, dict) else None,
    )


def unknown_option(of: str, option: str, known: Sequence[str]) -> InvalidOptions:
    """The error for an option that ``of``, an architecture or a target, does not have."""
    near = get_close_matches(option[:SHOWN], known, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    return InvalidOptions(
        f"{of} has no option {option[:SHOWN]!r}.",
        hint=f"{hint}Options: {', '.join(known[:LISTED]) or 'none'}.",
        option=option[:SHOWN],
        nearest=near,
    )


def _refuse_long(name: str, schema: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Lengths before contents: a validator checks every element of a list before it says that there are too many."""
    for option, value in options.items():
        spec = schema.get("properties", {}).get(option, {})
        most = spec.get("maxItems" if isinstance(value, list) else "maxProperties")
        if isinstance(value, list | dict) and most is not None and len(value) > most:
            raise InvalidOptions(
                f"{name}: option {option!r} holds {len(value)} values; at most {most} are admitted.",
                option=option,
                admitted=spec,
            )


def complete_options(schema: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the schema's defaults filled in; JSON's integral floats (10.0) where integers are meant."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    complete = {key: spec["default"] for key, spec in properties.items() if "default" in spec}
    for key, value in options.items():
        whole = isinstance(value, float) and value.is_integer() and _means_integers(properties.get(key, {}))
        complete[key] = int(value) if whole else value
    return complete


def unknown_options(schema: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted names of what the options hold and the schema admits without naming it, in nested objects too."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    found: list[str] = []
    for key, value in options.items():
        if key not in properties:
            found.append(key)
        elif isinstance(value, Mapping) and "properties" in properties[key]:
            found += [f"{key}.{name}" for name in unknown_options(properties[key], value)]
    return tuple(found)


def _means_integers(schema: Mapping[str, Any]) -> bool:
    types = schema.get("type", ())
    return types == "integer" or ("integer" in types and "number" not in types)
