"""The conversion as clients see it, made from its rows."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel

from app.api.problems import problem_type
from app.database import tables
from app.delivery.report_page import stage_seconds
from app.domain.conversion import State
from app.domain.errors import Problem
from app.domain.report import Verdict
from app.remotes.grants import without_query

TEMPLATE_MEMBERS = ("state", "key", "reason", "seconds")
"""What the resource tells of a template; its certificate is in the report."""


class FileResource(BaseModel):
    """A file that a conversion produced."""

    filename: str
    sha256: str
    bytes: int
    media_type: str
    verified: bool
    """False: it did not pass verification and is served only with ?unverified=true, or because on_mismatch=warn."""


class CheckpointReference(BaseModel):
    """``sha256`` is empty until a file that is named by its ``uri`` was fetched, unless the request told it."""

    sha256: str
    filename: str | None
    uri: str | None
    """Where it is fetched from, without what follows its path; null: it was uploaded."""


class PublicationResource(BaseModel):
    """``state``: waiting (for the conversion's end), pending, published, failed, or skipped (it did not succeed)."""

    uri: str
    name: str | None
    version: int | None
    state: str
    receipt: dict[str, Any] | None
    """Where the files are, and under which version or digest."""
    error: dict[str, Any] | None
    published_at: datetime | None


class ConversionLinks(BaseModel):
    """Paths of what belongs to the conversion; those of results are null until there is such a result."""

    self: str
    events: str
    log: str
    checkpoint: str
    artifact: str | None
    artifact_data: str | None
    bundle: str | None
    report: str | None
    statement: str | None
    cancel: str | None
    retry: str | None


class ConversionResource(BaseModel):
    """One conversion. Times are RFC 3339 in UTC, durations in seconds, sizes in bytes."""

    id: str
    name: str | None
    labels: dict[str, str]
    priority: int
    timeout: float | None
    """Seconds that an attempt may take; null: what the service allows."""
    state: State
    stage: str | None
    progress: float
    attempt: int
    waiting_for: str | None
    """The part of the service that is away and that it waits for, to go on by itself: store or disk_space."""
    architecture: str
    architecture_options: dict[str, Any]
    recipe: str | None
    """Digest of the version, where the architecture is a recipe."""
    target: str
    options: dict[str, Any]
    checkpoint: CheckpointReference
    accept: list[str]
    """Verdicts that count as success; with another one the conversion has failed."""
    verdict: str | None
    parity: dict[str, Any] | None
    """The output that lies nearest to its gate: probe, output, error, gate, ratio (error / gate)."""
    findings: list[dict[str, Any]]
    timings: dict[str, Any]
    peak_memory_bytes: int | None
    template: dict[str, Any] | None
    problem: dict[str, Any] | None
    artifact: FileResource | None
    artifact_data: FileResource | None
    publications: list[PublicationResource]
    """The places that its files are published to."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    """When its files will be given up; null while it has not finished, and where they are kept for ever."""
    expired_at: datetime | None
    links: ConversionLinks


def path_of(conversion_id: str) -> str:
    return f"/v1/conversions/{conversion_id}"


def conversion_resource(
    row: tables.Conversion, files: Sequence[tables.ConversionFile], retention: timedelta | None = None
) -> ConversionResource:
    """``retention``: how long files are kept after the end."""
    by_role = {file.role: file for file in files}
    verified = row.verdict is not None and Verdict(row.verdict).proved
    return ConversionResource(
        id=row.id,
        name=row.name,
        labels=row.labels,
        priority=row.priority,
        timeout=row.timeout,
        state=row.state,
        stage=row.stage,
        progress=row.progress,
        attempt=row.attempt,
        waiting_for=row.waiting_for,
        architecture=row.architecture,
        architecture_options=row.architecture_options,
        recipe=row.recipe,
        target=row.target,
        options=row.options,
        checkpoint=CheckpointReference(
            sha256=row.checkpoint_sha256 or row.source_sha256 or "",
            filename=row.checkpoint_filename,
            uri=row.source_uri and without_query(row.source_uri),
        ),
        accept=row.accept,
        verdict=row.verdict,
        parity=row.parity,
        findings=row.findings,
        timings=stage_seconds(row.timings),
        peak_memory_bytes=row.peak_memory_bytes,
        template=row.template and {member: row.template[member] for member in TEMPLATE_MEMBERS},
        problem=None if row.problem is None else shown_problem(Problem.kept(row.problem)),
        artifact=_file(by_role.get("artifact"), verified),
        artifact_data=_file(by_role.get("artifact_data"), verified),
        publications=[PublicationResource.model_validate(one) for one in row.publications],
        created_at=row.created_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        expires_at=row.finished_at + retention if row.finished_at and retention and not row.expired_at else None,
        expired_at=row.expired_at,
        links=_links(row, by_role),
    )


def shown_problem(problem: Problem) -> dict[str, Any]:
    """A stored problem with the members of a problem document, without those of one request."""
    members = problem.model_dump(exclude={"extra"}, exclude_none=True)
    return {
        "type": problem_type(problem.code),
        **members,
        **{k: v for k, v in problem.extra.items() if k not in members},
    }


def _file(row: tables.ConversionFile | None, verified: bool) -> FileResource | None:
    if row is None:
        return None
    return FileResource(
        filename=row.filename, sha256=row.sha256, bytes=row.bytes, media_type=row.media_type, verified=verified
    )


def _links(row: tables.Conversion, by_role: dict[str, tables.ConversionFile]) -> ConversionLinks:
    path = path_of(row.id)
    failed = row.state in (State.failed, State.timed_out, State.canceled)
    return ConversionLinks(
        self=path,
        events=f"{path}/events",
        log=f"{path}/log",
        checkpoint=f"/v1/checkpoints/{row.checkpoint_sha256}" if row.checkpoint_sha256 else "",
        artifact=f"{path}/artifact" if "artifact" in by_role else None,
        artifact_data=f"{path}/artifact?part=data" if "artifact_data" in by_role else None,
        bundle=f"{path}/bundle" if "artifact" in by_role else None,
        report=f"{path}/report" if "report" in by_role else None,
        statement=f"{path}/statement" if "statement" in by_role else None,
        cancel=None if row.state.final else f"{path}/cancel",
        retry=f"{path}/retry" if failed else None,
    )
