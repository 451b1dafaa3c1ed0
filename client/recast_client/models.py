"""The service's resources as values; ``document`` holds every member, also of later versions of the service."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FINAL = frozenset({"succeeded", "failed", "canceled", "timed_out"})
COLOURS = {
    "pass": "#14804a",
    "pass_with_notes": "#8a6100",
    "within_budget": "#0b6e8a",
    "inconclusive": "#6941c6",
    "fail": "#b3261e",
}


@dataclass(frozen=True)
class Artifact:
    filename: str
    sha256: str
    bytes: int
    verified: bool


@dataclass(frozen=True)
class Event:
    """One server-sent event of a conversion: what it was at that moment."""

    id: str
    state: str
    stage: str | None
    progress: float
    verdict: str | None


@dataclass(frozen=True)
class Conversion:
    """One conversion as the service described it last."""

    document: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.document["id"])

    @property
    def state(self) -> str:
        """queued, running, succeeded, failed, canceled or timed_out."""
        return str(self.document["state"])

    @property
    def finished(self) -> bool:
        return self.state in FINAL

    @property
    def stage(self) -> str | None:
        return self.document.get("stage")

    @property
    def progress(self) -> float:
        """Of the whole conversion, in [0, 1]."""
        return float(self.document.get("progress") or 0.0)

    @property
    def verdict(self) -> str | None:
        """pass, pass_with_notes, within_budget (an approximation), inconclusive or fail; None before verification."""
        return self.document.get("verdict")

    @property
    def findings(self) -> Sequence[Mapping[str, Any]]:
        """What the verdict rests on: reason, severity and detail each."""
        return tuple(self.document.get("findings") or ())

    @property
    def artifact(self) -> Artifact | None:
        return _artifact(self.document.get("artifact"))

    @property
    def artifact_data(self) -> Artifact | None:
        """The weights file of a model in two files."""
        return _artifact(self.document.get("artifact_data"))

    @property
    def links(self) -> Mapping[str, str | None]:
        links: Mapping[str, str | None] = self.document["links"]
        return links

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        said = self.verdict or self.state
        colour = COLOURS.get(said, "#5b6470")
        details = "".join(f"<li>{html.escape(f['reason'])}: {html.escape(f['detail'])}</li>" for f in self.findings)
        return (
            f'<div><b style="color:{colour}">{html.escape(said)}</b> '
            f"{html.escape(str(self.document['architecture']))} → {html.escape(str(self.document['target']))} "
            f"<code>{html.escape(self.id)}</code><ul>{details}</ul></div>"
        )


def _artifact(document: Mapping[str, Any] | None) -> Artifact | None:
    if document is None:
        return None
    return Artifact(document["filename"], document["sha256"], document["bytes"], document["verified"])
