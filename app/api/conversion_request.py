"""What a client may ask for: one conversion, as JSON or as a multipart form."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.api.bodies import parse_object
from app.api.problems import from_validation
from app.domain.catalog import Catalog
from app.domain.conversion import OnnxOptions, TargetOptions, TorchScriptOptions
from app.domain.errors import InvalidOptions, InvalidRequest

TARGETS = ("onnx", "torchscript")
TEXT_FIELDS = frozenset({"architecture", "architecture_options", "target", "options", "checkpoint"})
FILE_FIELDS = frozenset({"file", "probes"})

_options: TypeAdapter[OnnxOptions | TorchScriptOptions] = TypeAdapter(TargetOptions)


@dataclass(frozen=True)
class ConversionRequest:
    """A request whose architecture exists and whose options are admitted."""

    architecture: str
    architecture_options: dict[str, Any]
    options: OnnxOptions | TorchScriptOptions

    def digest(self, checkpoint_sha256: str, probes_sha256: str | None) -> str:
        """sha256 of the result that is asked for."""
        asked = {
            "architecture": self.architecture,
            "architecture_options": self.architecture_options,
            "options": self.options.model_dump(mode="json"),
            "checkpoint": checkpoint_sha256,
            "probes": probes_sha256,
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode("ascii")).hexdigest()


def request_digest(result: str, *, force: bool) -> str:
    """sha256 of all that a client asks for: the result of that digest, and whether to make it anew.

    An Idempotency-Key stands for one such digest.
    """
    return hashlib.sha256(f"{result}\nforce={force}".encode("ascii")).hexdigest()


def form_members(fields: Mapping[str, str]) -> dict[str, Any]:
    """A form's text fields as the members of the JSON form of the request."""
    members: dict[str, Any] = dict(fields)
    for name in ("options", "architecture_options"):
        if name in fields:
            members[name] = parse_object(fields[name], name) if fields[name].strip() else {}
    return members


def refuse_unknown_members(names: set[str], known: frozenset[str]) -> None:
    unknown = sorted(name[:100] for name in names - known)
    if unknown:
        raise InvalidRequest(
            f"Unknown members: {', '.join(unknown[:10])}.", hint=f"Known ones: {', '.join(sorted(known))}."
        )


def conversion_request(members: Mapping[str, Any], catalog: Catalog) -> ConversionRequest:
    """Check what was asked for. Raises InvalidRequest, UnknownArchitecture, InvalidOptions."""
    architecture = _text(members, "architecture")
    target = _text(members, "target")
    if target not in TARGETS:
        raise InvalidRequest(f"Unknown target {target[:100]!r}.", hint=f"Targets: {', '.join(TARGETS)}.")
    description = catalog.get(architecture)
    if target not in description.targets:
        raise InvalidRequest(
            f"{architecture} cannot become {target}.", hint=f"Its targets: {', '.join(description.targets)}."
        )
    architecture_options = _mapping(members, "architecture_options")
    catalog.validate_options(architecture, architecture_options)
    return ConversionRequest(architecture, architecture_options, target_options(target, _mapping(members, "options")))


def target_options(target: str, given: Mapping[str, Any]) -> OnnxOptions | TorchScriptOptions:
    """The target's options with defaults filled in. Raises InvalidOptions that names the option at fault."""
    if given.get("target", target) != target:
        raise InvalidOptions(f"options.target says {str(given['target'])[:100]!r}, the request says {target!r}.")
    model = OnnxOptions if target == "onnx" else TorchScriptOptions
    try:
        return _options.validate_json(json.dumps({**given, "target": target}), strict=True)
    except ValidationError as error:
        told = from_validation(error.errors(include_url=False))
        known = ", ".join(name for name in model.model_fields if name != "target")
        raise InvalidOptions(
            told.detail.removeprefix(f"{target}."), hint=f"Options of {target}: {known}.", **told.extra
        ) from None


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name} is missing." if value is None else f"{name} must be a non-empty string.")
    return value


def _mapping(members: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = members.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object, not {type(value).__name__}.")
    return value
