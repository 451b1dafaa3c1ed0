"""Checking an architecture's options against its JSON Schema (draft 2020-12)."""

from collections.abc import Mapping
from typing import Any

from app.domain.errors import InvalidOptions

SHOWN = 200
"""How many characters of the client's own text an error repeats."""


def check_options(name: str, schema: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises InvalidOptions that names the option at fault and what the schema admits there."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema).iter_errors(dict(options)))
    if error is None:
        return
    path = ".".join(str(part) for part in error.absolute_path)
    where = f"option {path!r}" if path else "the options"
    message = error.message if len(error.message) <= SHOWN else f"{error.message[:SHOWN]}..."
    known = sorted(schema.get("properties", {}))
    raise InvalidOptions(
        f"{name}: {where}: {message}",
        hint=f"Options of this architecture: {', '.join(known[:30]) or 'none'}.",
        option=path or None,
        admitted=error.schema if path and isinstance(error.schema, dict) else None,
    )


def complete_options(schema: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the schema's defaults filled in; JSON's integral floats (10.0) where integers are meant."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    complete = {key: spec["default"] for key, spec in properties.items() if "default" in spec}
    for key, value in options.items():
        whole = isinstance(value, float) and value.is_integer() and _means_integers(properties.get(key, {}))
        complete[key] = int(value) if whole else value
    return complete


def _means_integers(schema: Mapping[str, Any]) -> bool:
    types = schema.get("type", ())
    return types == "integer" or ("integer" in types and "number" not in types)
