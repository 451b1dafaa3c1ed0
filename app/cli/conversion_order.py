"""What `recast convert` was asked to do, checked before anything slow is imported or sent."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.cli.failure import UsageError
from app.domain.conversion import CommonOptions
from app.targets.specs import OPTIONS, SPECS


@dataclass(frozen=True)
class Order:
    """One conversion, and where its results go."""

    weights: Path
    architecture: str
    architecture_options: dict[str, Any]
    options: CommonOptions
    given_options: dict[str, Any]
    """As given, without defaults: what a server is sent."""
    output: Path
    report: Path | None
    bundle: Path | None
    probes: Path | None
    unverified: bool


def order(
    *,
    weights: Path,
    architecture: str,
    target: str,
    options: str,
    architecture_options: str,
    output: Path,
    report: Path | None,
    bundle: Path | None,
    probes: Path | None,
    unverified: bool,
    allow_missing: Sequence[str] = (),
) -> Order:
    """``allow_missing`` is added to that of ``options``. Raises UsageError for what cannot be meant."""
    if target not in SPECS:
        raise UsageError(f"There is no target {target!r}.", hint=f"Targets: {', '.join(SPECS)}.")
    for file in (weights, probes):
        if file is not None and not file.is_file():
            raise UsageError(f"{file} is no file." if file.exists() else f"There is no file {file}.")
    for place in (output, report, bundle):
        if place is not None and not place.absolute().parent.is_dir():
            raise UsageError(f"There is no directory {place.absolute().parent}.")
    given = _object(options, "--options")
    if allow_missing:
        named = given.get("allow_missing", [])
        given["allow_missing"] = [*named, *allow_missing] if isinstance(named, list) else named
    try:
        parsed = OPTIONS.validate_json(json.dumps({**given, "target": target}), strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"][1:])
        raise UsageError(f"--options: {where}: {fault['msg']}") from None
    return Order(
        weights=weights,
        architecture=architecture,
        architecture_options=_object(architecture_options, "--architecture-options"),
        options=parsed,
        given_options=given,
        output=output,
        report=report,
        bundle=bundle,
        probes=probes,
        unverified=unverified,
    )


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{name} must be a JSON object.")
    return value
