"""One conversion as a step of a pipeline: ``python -m recast_client.ci``, told by variables.

RECAST_URL, RECAST_WEIGHTS (a file, or the sha256 of an uploaded one) and RECAST_ARCHITECTURE are needed.
RECAST_API_KEY, RECAST_TARGET (onnx), RECAST_OPTIONS, RECAST_ARCHITECTURE_OPTIONS and RECAST_LABELS (JSON objects),
RECAST_ACCEPT (verdicts parted by commas) and RECAST_OUTPUT (a directory) are not. What came of it is added as
name=value lines to the file that RECAST_RESULT or GITHUB_OUTPUT names, and as Markdown to GITHUB_STEP_SUMMARY.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recast_client.client import Client
from recast_client.errors import RecastError
from recast_client.flows import ACCEPTED
from recast_client.models import Conversion


def run(told: Mapping[str, str]) -> int:
    """Convert and download; gives the exit status: 0, 1 where it was not converted, 2 where a variable is wrong."""
    try:
        url, weights, architecture = (told[name] for name in ("RECAST_URL", "RECAST_WEIGHTS", "RECAST_ARCHITECTURE"))
        asked: dict[str, Any] = {
            "architecture": architecture,
            "target": told.get("RECAST_TARGET") or "onnx",
            "options": _object(told, "RECAST_OPTIONS"),
            "architecture_options": _object(told, "RECAST_ARCHITECTURE_OPTIONS"),
            "members": {"labels": _object(told, "RECAST_LABELS")},
        }
    except (KeyError, ValueError) as error:
        print(f"Wrong variables: {error}", file=sys.stderr)
        return 2
    accept = tuple(filter(None, told.get("RECAST_ACCEPT", "").split(","))) or ACCEPTED
    try:
        with Client(url, told.get("RECAST_API_KEY") or None) as client:
            conversion = client.convert(weights, accept=accept, **asked)
            paths = client.download(conversion, told.get("RECAST_OUTPUT") or ".")
    except RecastError as error:
        print(f"{error.code}: {error.detail}", file=sys.stderr)
        _summarise(told, f"**Recast**: {architecture} was not converted: `{error.code}`")
        return 1
    _tell(told, conversion, paths)
    return 0


def _object(told: Mapping[str, str], name: str) -> dict[str, Any]:
    value = json.loads(told.get(name) or "{}")
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no JSON object")
    return value


def _tell(told: Mapping[str, str], conversion: Conversion, paths: list[Path]) -> None:
    facts = {"conversion": conversion.id, "verdict": conversion.verdict, "artifact": paths[0]}
    if conversion.artifact is not None:
        facts["sha256"] = conversion.artifact.sha256
    lines = "".join(f"{name}={value}\n" for name, value in facts.items())
    print(lines, end="")
    for name in ("RECAST_RESULT", "GITHUB_OUTPUT"):
        if told.get(name):
            with open(told[name], "a", encoding="utf-8") as file:
                file.write(lines)
    _summarise(told, f"**Recast**: `{paths[0].name}`, verdict `{conversion.verdict}` ({conversion.id})")


def _summarise(told: Mapping[str, str], line: str) -> None:
    if told.get("GITHUB_STEP_SUMMARY"):
        with open(told["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(run(os.environ))
