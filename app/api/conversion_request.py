"""What a client may ask for: one conversion, as JSON or as a multipart form."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from app.api.bodies import parse_object
from app.api.labels import checked_labels, checked_name
from app.api.problems import from_validation
from app.api.webhooks import WebhookRequest, checked_webhook
from app.domain import acceptance
from app.domain.catalog import Catalog
from app.domain.conversion import MAX_NAMES, CommonOptions
from app.domain.errors import InvalidOptions, InvalidRequest
from app.domain.options import unknown_option
from app.domain.publication import Publication
from app.domain.report import Verdict
from app.domain.webhook import NewWebhook
from app.remotes.destinations import checked_publication
from app.remotes.egress import Egress
from app.targets.spec import TargetSpec
from app.targets.specs import OPTIONS, SPECS, known_target, target_not_installed

TEXT_FIELDS = frozenset(
    {"architecture", "architecture_options", "target", "options", "checkpoint", "force", "accept", "name", "labels"}
    | {"webhook", "targets", "precisions", "checkpoints", "publish", "priority", "timeout"}
)
"""Members of the JSON form, and text fields of the multipart form."""
FILE_FIELDS = frozenset({"file", "probes"})
OBJECT_FIELDS = ("options", "architecture_options", "labels", "webhook")
LIST_FIELDS = ("targets", "precisions", "checkpoints")
"""Those that ask for several conversions."""
MOST_PLACES = 10
"""To which one conversion is published by one request."""
MOST_CONVERSIONS = 100
"""That one request may ask for."""
NOTHING_INTERNAL = Egress()
LEAST_PRIORITY, MOST_PRIORITY = -100, 100
LEAST_TIMEOUT = 1.0
"""Seconds."""
NUMBER = re.compile(r"-?\d{1,9}(\.\d{1,9})?", re.ASCII)
YES = (True, "true", "1")
NO = (False, "false", "0", "")


@dataclass(frozen=True)
class ConversionRequest:
    """A request whose architecture exists and whose options are admitted."""

    architecture: str
    architecture_options: dict[str, Any]
    options: CommonOptions
    accept: tuple[Verdict, ...] = acceptance.DEFAULT
    """Verdicts that count as success."""
    recipe: str | None = None
    """Digest of the version, where the architecture is a recipe."""
    pinned: str = ""
    """The version that the request itself names."""
    force: bool = False
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    priority: int = 0
    timeout: float | None = None
    """Seconds that an attempt may take."""
    webhook: NewWebhook | None = None
    publish: tuple[Publication, ...] = ()
    """Where its files are to be put when it has succeeded."""

    def digest(self, checkpoint_sha256: str, probes_sha256: str | None) -> str:
        """sha256 of the result that is asked for."""
        asked = {
            "architecture": self.architecture,
            "architecture_options": self.architecture_options,
            "options": self.options.model_dump(mode="json"),
            "checkpoint": checkpoint_sha256,
            "probes": probes_sha256,
            **({"version": self.pinned} if self.pinned else {}),
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode("ascii")).hexdigest()

    def idempotency_digest(self, result: str) -> str:
        """sha256 of all that a client asks for: the result of that digest, and what becomes of it.

        An Idempotency-Key stands for one such digest.
        """
        asked = f"{result}\nforce={self.force}"
        if self.accept != acceptance.DEFAULT:
            asked += f"\naccept={','.join(self.accept)}"
        if self.priority or self.timeout is not None:
            asked += f"\npriority={self.priority} timeout={self.timeout}"
        if self.webhook is not None:
            asked += f"\nwebhook={self.webhook.model_dump_json(exclude={'name'})}"
        for place in self.publish:
            asked += f"\npublish={place.uri} {place.name} {place.version}"
        return hashlib.sha256(asked.encode("ascii")).hexdigest()


def form_members(fields: Mapping[str, str]) -> dict[str, Any]:
    """A form's text fields as the members of the JSON form of the request; empty ones are as absent."""
    given = {name: text for name, text in fields.items() if text.strip()}
    objects = {name: parse_object(given[name], name) for name in OBJECT_FIELDS if name in given}
    listed = [name for name in (*LIST_FIELDS, "publish") if name in given]
    lists = {name: parse_object(f'{{"{name}": {given[name]}}}', name)[name] for name in listed}
    return {**given, **objects, **lists}


def single_requests(members: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The members of each conversion that a request asks for: of every one of its targets for every checkpoint.

    Raises InvalidRequest.
    """
    common = {name: value for name, value in members.items() if name not in LIST_FIELDS}
    targets = [_variant(told) for told in _several(members, "targets", ("target", "options"))]
    if "precisions" in members:
        precisions = _several(members, "precisions", ("targets",))
        targets = [_rung(members, precision, precisions) for precision in precisions]
    checkpoints = [{"checkpoint": told} for told in _several(members, "checkpoints", ("checkpoint",))]
    if len(targets) * len(checkpoints) > MOST_CONVERSIONS:
        raise InvalidRequest(f"One request may ask for {MOST_CONVERSIONS} conversions.")
    return [
        {**common, **(target or {}), **({} if checkpoint["checkpoint"] is None else checkpoint)}
        for checkpoint in checkpoints
        for target in targets
    ]


def asks_for_several(members: Mapping[str, Any]) -> bool:
    return any(name in members for name in LIST_FIELDS)


def _several(members: Mapping[str, Any], name: str, instead: tuple[str, ...]) -> list[Any]:
    """The elements of a list, which stands in the place of other members; [None] where it is absent."""
    value = members.get(name)
    if value is None:
        return [None]
    if not isinstance(value, list) or not 0 < len(value) <= MOST_CONVERSIONS:
        raise InvalidRequest(f"{name} must be a list of 1 to {MOST_CONVERSIONS}.")
    for other in instead:
        if other in members:
            raise InvalidRequest(f"Send either {other} or {name}, not both.")
    return value


def _variant(told: Any) -> dict[str, Any] | None:
    if told is None:
        return None
    if not isinstance(told, dict):
        raise InvalidRequest('targets must be objects such as {"target": "onnx", "options": {}}.')
    refuse_unknown_members(set(told), frozenset({"target", "options"}))
    return told


def _rung(members: Mapping[str, Any], precision: Any, all_of_them: Sequence[Any]) -> dict[str, Any]:
    """One precision of the target, with the latency measured, so that each has its price.

    Options of another one that was asked for beside it are left to that one.
    """
    spec = known_target(members.get("target", ""))
    other = {} if spec is None else spec.options.of_precision
    options = {
        name: value
        for name, value in _mapping(members, "options").items()
        if other.get(name, precision) == precision or other[name] not in all_of_them
    }
    if "precision" in options:
        raise InvalidRequest("Send either precisions or the option precision, not both.")
    measured = options.get("measure") or []
    if not isinstance(precision, str) or not isinstance(measured, list):
        raise InvalidRequest('precisions must be a list such as ["fp32", "fp16", "int8"].')
    return {"options": {**options, "precision": precision, "measure": [*dict.fromkeys([*measured, "latency"])]}}


def refuse_unknown_members(names: set[str], known: frozenset[str]) -> None:
    unknown = sorted(name[:100] for name in names - known)
    if unknown:
        raise InvalidRequest(
            f"Unknown members: {', '.join(unknown[:10])}.", hint=f"Known ones: {', '.join(sorted(known))}."
        )


def conversion_request(
    members: Mapping[str, Any],
    catalog: Catalog,
    egress: Egress = NOTHING_INTERNAL,
    *,
    longest: float = float("inf"),
) -> ConversionRequest:
    """Check what was asked for; an attempt takes no longer than ``longest`` seconds.

    Raises InvalidRequest, UnknownArchitecture, InvalidOptions, AddressNotAllowed, TargetNotInstalled.
    """
    architecture = _text(members, "architecture")
    target = _text(members, "target")
    spec = known_target(target)
    if spec is None:
        raise InvalidRequest(f"Unknown target {target[:100]!r}.", hint=f"Targets: {', '.join(SPECS)}.")
    description = catalog.get(architecture)
    if spec.name in description.lacking:
        raise target_not_installed(spec, description.lacking[spec.name])
    if spec.name not in description.targets:
        raise InvalidRequest(
            f"{architecture} cannot become {target}.", hint=f"Its targets: {', '.join(description.targets)}."
        )
    architecture_options = _mapping(members, "architecture_options")
    catalog.validate_options(architecture, architecture_options)
    options = target_options(spec, _mapping(members, "options"))
    publish = checked_places(members.get("publish"))
    if publish and options.over_checkpoint:
        raise InvalidOptions("external_data=checkpoint cannot be published: the artifact has no weights of its own.")
    return ConversionRequest(
        description.name if description.recipe else architecture,
        architecture_options,
        options,
        recipe=description.recipe,
        pinned=architecture.partition("@")[2] if description.recipe else "",
        accept=_accept(members),
        force=_flag(members, "force"),
        name=checked_name(members.get("name")),
        labels=checked_labels(_mapping(members, "labels")),
        priority=int(_number(members, "priority", LEAST_PRIORITY, MOST_PRIORITY, whole=True) or 0),
        timeout=_number(members, "timeout", LEAST_TIMEOUT, longest),
        webhook=_webhook(members, egress),
        publish=publish,
    )


def target_options(spec: TargetSpec, given: Mapping[str, Any]) -> CommonOptions:
    """The target's options with defaults filled in. Raises InvalidOptions that names the option at fault."""
    target, model = spec.name, spec.options
    if given.get("target", target) != target:
        raise InvalidOptions(f"options.target says {str(given['target'])[:100]!r}, the request says {target!r}.")
    known = [name for name in model.model_fields if name != "target"]
    for name in given.keys() - model.model_fields.keys():
        raise unknown_option(target, name, known)
    for name, value in given.items():
        if isinstance(value, list | dict) and len(value) > MAX_NAMES:
            raise InvalidOptions(f"{name} holds {len(value)} values; at most {MAX_NAMES} are admitted.")
    try:
        return OPTIONS.validate_json(json.dumps({**given, "target": target}), strict=True)
    except ValidationError as error:
        told = from_validation(error.errors(include_url=False)[:1])
        raise InvalidOptions(
            told.detail.removeprefix(f"{target}."), hint=f"Options of {target}: {', '.join(known)}.", **told.extra
        ) from None


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name} is missing." if value is None else f"{name} must be a non-empty string.")
    return value


def _number(members: Mapping[str, Any], name: str, least: float, most: float, *, whole: bool = False) -> float | None:
    """A number, in a form as its text; None where there is none."""
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise InvalidRequest(f"{name} must be {kind} from {least:g} to {most:g}.")
    return float(value)


def _flag(members: Mapping[str, Any], name: str) -> bool:
    """Written in any of the ways in which languages write a truth value."""
    value = members.get(name) or False
    given = value.strip().lower() if isinstance(value, str) else value
    if isinstance(given, bool | str) and given in (*YES, *NO):
        return given in YES
    raise InvalidRequest(f"{name} must be true or false.")


def _accept(members: Mapping[str, Any]) -> tuple[Verdict, ...]:
    """One verdict, several in a list, or (in a form) several parted by commas."""
    value = members.get("accept")
    if value is None:
        return acceptance.DEFAULT
    named = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    known = acceptance.BEST_FIRST
    if not (isinstance(named, list) and 0 < len(named) <= len(known) and all(name in known for name in named)):
        raise InvalidRequest(
            "accept must name the verdicts that count as success.",
            hint=f"One or several of {', '.join(known)}.",
        )
    return acceptance.accepted(Verdict(name) for name in named)


def checked_places(told: Any) -> tuple[Publication, ...]:
    """Where to publish to. Raises InvalidRequest."""
    if told is None:
        return ()
    if not isinstance(told, list) or not 0 < len(told) <= MOST_PLACES:
        raise InvalidRequest(f"publish must be a list of 1 to {MOST_PLACES} places.")
    return tuple(checked_publication(one) for one in told)


def _webhook(members: Mapping[str, Any], egress: Egress) -> NewWebhook | None:
    told = _mapping(members, "webhook")
    if not told:
        return None
    try:
        asked = WebhookRequest.model_validate(told)
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False, include_input=False)[:1]) from None
    return checked_webhook(asked, egress, secret_needed=True)


def _mapping(members: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = members.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object, not {type(value).__name__}.")
    return value
