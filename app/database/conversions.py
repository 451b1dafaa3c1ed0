"""Reading and writing conversions. Who runs one writes under its attempt number, which fences earlier runners out."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, Table, delete, func, select, text, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import events, limits, publications, webhooks
from app.database.backlog import Backlog
from app.database.projects import owner_of_new, project_of
from app.database.session import commit_without_waiting
from app.database.tables import Conversion, ConversionFile, Worker
from app.database.workers import lives
from app.domain import acceptance
from app.domain.conversion import CommonOptions, Stage, State
from app.domain.errors import InUse, NotFound, Problem
from app.domain.identifiers import conversion_id
from app.domain.publication import Publication
from app.domain.report import Finding, ProducedFile, TemplateUse, Verdict, WorstParity
from app.domain.webhook import NewWebhook
from app.targets.abilities import needs

ID = re.compile(r"cnv_[0-9a-f]{32}")
SHOWN_ID = 100
"""Characters of an id that names nothing which an error repeats."""
COUNTED = 10_000
"""Matches up to which a list tells their total."""
UNFINISHED = (State.queued, State.running)


class AttemptLost(Exception):
    """The attempt is not the conversion's current one any more: it was canceled, or given to another worker."""


@dataclass(frozen=True)
class SourceReference:
    """A file that a worker is to fetch, and its sha256 where the client knows it."""

    uri: str
    sha256: str | None = None


@dataclass(frozen=True)
class NewConversion:
    """A validated request for a conversion."""

    checkpoint_sha256: str
    """Empty where the file is to be fetched from ``source``."""
    architecture: str
    options: CommonOptions
    architecture_options: dict[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    """Digest of the version, where the architecture is a recipe."""
    checkpoint_filename: str | None = None
    dedup_key: str | None = None
    probes_sha256: str | None = None
    accept: tuple[Verdict, ...] = acceptance.DEFAULT
    """Verdicts that count as success."""
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    priority: int = 0
    timeout: float | None = None
    """Seconds."""
    source: SourceReference | None = None
    publish: tuple[Publication, ...] = ()
    """Where its files are to be put when it has succeeded."""
    request_id: str | None = None
    webhook: NewWebhook | None = None
    """Who is to be told what happens to it."""
    backlog: Backlog | None = None
    """Only where it has room for one more; None: in any case."""


@dataclass(frozen=True)
class Ending:
    """How an attempt ended."""

    state: State
    problem: Problem | None = None
    verdict: Verdict | None = None
    parity: WorstParity | None = None
    findings: tuple[Finding, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    template: TemplateUse | None = None
    files: tuple[ProducedFile, ...] = ()


@dataclass(frozen=True)
class Filter:
    """Which conversions to list; None: any. ``before``: only ids below this one (the cursor)."""

    state: State | None = None
    architecture: str | None = None
    target: str | None = None
    checkpoint_sha256: str | None = None
    verdict: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    """Pairs that it must have."""
    architectures: Collection[str] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: str | None = None


# --- reading -------------------------------------------------------------------------------------------------------


async def find(session: AsyncSession, id: str) -> Conversion:
    """The conversion of that id; NotFound."""
    return await _get(session, id)


async def find_locked(session: AsyncSession, id: str) -> Conversion:
    """As ``find``, with the row locked until the transaction ends."""
    return await _get(session, id, lock=True)


@dataclass(frozen=True)
class Found:
    """A conversion and its files, ordered by role."""

    conversion: Conversion
    files: Sequence[ConversionFile]


async def find_with_files(session: AsyncSession, id: str) -> Found:
    """The conversion of that id and its files, in one query; NotFound."""
    query = select(Conversion, _FILES).where(Conversion.id == id)
    row = (await session.execute(query)).first() if ID.fullmatch(id) else None
    if row is None:
        raise NotFound(f"There is no conversion {id[:SHOWN_ID]!r}.")
    return _found(row)


async def newest_with_files(session: AsyncSession, wanted: Filter, limit: int) -> Sequence[Found]:
    """Up to ``limit`` conversions, newest first, and their files, in one query."""
    query = _matching(select(Conversion, _FILES), wanted, cursor=True)
    rows = await session.execute(query.order_by(Conversion.id.desc()).limit(limit))
    return [_found(row) for row in rows]


async def count(session: AsyncSession, wanted: Filter) -> int | None:
    """How many conversions match on all pages; None where counting them would take long (more than COUNTED)."""
    matching = _matching(select(Conversion.id), wanted, cursor=False)
    if (project := project_of(session)) is not None:
        matching = matching.where(Conversion.project_id == project)
    counted = select(func.count()).select_from(matching.limit(COUNTED + 1).subquery())
    found = await session.scalar(counted) or 0
    return None if found > COUNTED else found


_FILES = (
    select(func.jsonb_agg(func.to_jsonb(text("conversion_files.*"))))
    .select_from(ConversionFile)
    .where(ConversionFile.conversion_id == Conversion.id)
    .correlate(Conversion)
    .scalar_subquery()
)


def _found(row: Row[Any, Any]) -> Found:
    conversion, files = row
    return Found(conversion, sorted((ConversionFile(**file) for file in files or ()), key=lambda file: file.role))


async def newest(session: AsyncSession, wanted: Filter, limit: int) -> Sequence[Conversion]:
    """Up to ``limit`` conversions, newest first."""
    query = _matching(select(Conversion), wanted, cursor=True)
    return (await session.scalars(query.order_by(Conversion.id.desc()).limit(limit))).all()


@dataclass(frozen=True)
class Overview:
    """A page of a list, how many conversions there are in each state, and how many workers live."""

    rows: Sequence[Conversion]
    counts: dict[State, int]
    workers: int


async def overview(session: AsyncSession, wanted: Filter, limit: int, lost_after: float) -> Overview:
    """Up to ``limit`` conversions, newest first, and the counts beside them, in one query."""
    listed: Table = Conversion.__table__  # type: ignore[assignment]
    project = project_of(session)
    owned = true() if project is None else listed.c.project_id == project
    by_state = select(listed.c.state, func.count().label("count")).where(owned).group_by(listed.c.state).subquery()
    counts = select(func.jsonb_object_agg(by_state.c.state, by_state.c.count)).scalar_subquery()
    living = select(func.count(Worker.id)).where(lives(lost_after)).scalar_subquery()
    query = _matching(select(Conversion, counts, living), wanted, cursor=True)
    rows = (await session.execute(query.order_by(Conversion.id.desc()).limit(limit))).all()
    _, told, workers = rows[0] if rows else (None, *(await session.execute(select(counts, living))).one())
    return Overview(
        [row for row, _, _ in rows], {State(state): count for state, count in (told or {}).items()}, workers
    )


def _matching(query: Select[Any], wanted: Filter, *, cursor: bool) -> Select[Any]:
    for column, value in (
        (Conversion.state, wanted.state),
        (Conversion.architecture, wanted.architecture),
        (Conversion.target, wanted.target),
        (Conversion.checkpoint_sha256, wanted.checkpoint_sha256),
        (Conversion.verdict, wanted.verdict),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.created_after is not None:
        query = query.where(Conversion.created_at > wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(Conversion.created_at < wanted.created_before)
    if wanted.labels:
        query = query.where(Conversion.labels.contains(wanted.labels))
    if wanted.architectures is not None:
        query = query.where(Conversion.architecture.in_(wanted.architectures))
    if cursor and wanted.before is not None:
        query = query.where(Conversion.id < wanted.before)
    return query


async def running_in(session: AsyncSession, worker_id: int) -> Sequence[Conversion]:
    """What a worker runs, locked until the transaction ends."""
    query = select(Conversion).where(Conversion.worker_id == worker_id, Conversion.state == State.running)
    return (await session.scalars(query.order_by(Conversion.id).with_for_update())).all()


async def finished_twin(session: AsyncSession, dedup_key: str, accept: Sequence[Verdict]) -> Conversion | None:
    """The newest conversion that succeeded with the same inputs, with a verdict that is accepted, and whose files are
    still kept.

    A verdict ``fail`` succeeds only by an option, which is part of the key.
    """
    query = select(Conversion).where(
        Conversion.dedup_key == dedup_key,
        Conversion.state == State.succeeded,
        Conversion.verdict.in_((*accept, Verdict.fail)),
        Conversion.expired_at.is_(None),
    )
    return (await session.scalars(query.order_by(Conversion.id.desc()).limit(1))).first()


async def files(session: AsyncSession, id: str) -> Sequence[ConversionFile]:
    """The files of a conversion, ordered by role."""
    query = select(ConversionFile).where(ConversionFile.conversion_id == id).order_by(ConversionFile.role)
    return (await session.scalars(query)).all()


async def record_crc32(session: AsyncSession, file: ConversionFile, crc32: int) -> None:
    """Remember a file's CRC-32, once it had to be computed."""
    match = (ConversionFile.conversion_id == file.conversion_id) & (ConversionFile.role == file.role)
    await session.execute(update(ConversionFile).where(match, ConversionFile.sha256 == file.sha256).values(crc32=crc32))


async def count_by_state(session: AsyncSession) -> dict[State, int]:
    """How many conversions are in each state."""
    rows = await session.execute(select(Conversion.state, func.count()).group_by(Conversion.state))
    return {state: count for state, count in rows}


# --- writing -------------------------------------------------------------------------------------------------------


async def insert(session: AsyncSession, new: NewConversion) -> Conversion:
    """Add a queued conversion, with its first event. Raises QueueFull."""
    project = owner_of_new(session)
    if new.backlog is not None:
        await new.backlog.refuse_when_full(session, project)
    await limits.refuse_more_conversions(session, project)
    conversion = Conversion(
        id=conversion_id(),
        project_id=project,
        name=new.name,
        labels=new.labels,
        priority=new.priority,
        timeout=new.timeout,
        state=State.queued,
        stage=Stage.fetch.value if new.source else None,
        source_uri=new.source.uri if new.source else None,
        source_sha256=new.source.sha256 if new.source else None,
        progress=0.0,
        attempt=0,
        workers_lost=0,
        checkpoint_sha256=new.checkpoint_sha256,
        checkpoint_filename=new.checkpoint_filename,
        architecture=new.architecture,
        architecture_options=new.architecture_options,
        recipe=new.recipe,
        target=new.options.target,
        options=new.options.model_dump(mode="json"),
        needs=list(needs(new.options, recipe=new.recipe is not None)),
        dedup_key=new.dedup_key,
        probes_sha256=new.probes_sha256,
        accept=[verdict.value for verdict in new.accept],
        request_id=new.request_id,
        publications=[one.model_dump(mode="json") for one in new.publish],
        timings={},
    )
    session.add(conversion)
    await session.flush()
    await session.refresh(conversion)
    if new.webhook is not None:
        await webhooks.create(session, new.webhook, conversion)
    await events.record(session, conversion, "state")
    if new.backlog is not None:
        new.backlog.added(project)
    return conversion


_FETCHING = text("""
    select j.id from conversions c join procrastinate_jobs j on j.id = c.queue_job_id and j.status in ('todo', 'doing')
    where c.project_id = :project and c.state = 'queued' and c.checkpoint_sha256 = '' and c.source_uri = :uri
      and c.source_sha256 is not distinct from :sha256 and c.id <> :id
    limit 1
""")


async def start(
    session: AsyncSession, id: str, queue_job_id: int, worker: str, worker_id: int | None = None
) -> Conversion | None:
    """Begin a new attempt on behalf of a queue entry; None when that entry is no longer the conversion's own."""
    conversion = await session.get(Conversion, id, with_for_update=True, populate_existing=True)
    if conversion is None or conversion.state.final or conversion.queue_job_id != queue_job_id:
        return None
    conversion.state = State.running
    conversion.attempt += 1
    conversion.worker = worker
    conversion.worker_id = worker_id
    conversion.waiting_for = None
    conversion.stage = None
    conversion.progress = 0.0
    conversion.started_at = func.now()
    await _changed(session, conversion, "state")
    return conversion


async def awaiting(session: AsyncSession, queue_job_id: int) -> Sequence[Conversion]:
    """The conversions that wait under that queue entry for one file, locked until the transaction ends."""
    query = select(Conversion).where(Conversion.queue_job_id == queue_job_id, Conversion.state == State.queued)
    locked = query.order_by(Conversion.id).with_for_update().execution_options(populate_existing=True)
    return (await session.scalars(locked)).all()


async def fetching_entry(session: AsyncSession, conversion: Conversion) -> int | None:
    """The queue entry that fetches a conversion's file already, for another conversion of its project."""
    entry: int | None = await session.scalar(
        _FETCHING,
        {
            "id": conversion.id,
            "project": conversion.project_id,
            "uri": conversion.source_uri,
            "sha256": conversion.source_sha256,
        },
    )
    return entry


async def fetched(
    session: AsyncSession, conversion: Conversion, sha256: str, filename: str | None, seconds: float
) -> None:
    """Give a locked conversion the checkpoint that was fetched for it."""
    conversion.checkpoint_sha256 = sha256
    conversion.checkpoint_filename = filename
    conversion.timings = {Stage.fetch.value: seconds}
    conversion.stage = conversion.waiting_for = None
    await _changed(session, conversion, "progress")


async def wait_queued(session: AsyncSession, conversion: Conversion, part: str | None) -> None:
    """Record what a locked conversion waits for in the queue."""
    conversion.waiting_for = part
    await _changed(session, conversion, "progress")


async def advance(session: AsyncSession, id: str, attempt: int, stage: Stage, progress: float) -> None:
    """Record progress, which a crash of the database may forget. Raises AttemptLost."""
    await commit_without_waiting(session)
    conversion = await _held(session, id, attempt)
    conversion.stage = stage.value
    conversion.progress = progress
    conversion.waiting_for = None
    await _changed(session, conversion, "progress")


async def wait_for(session: AsyncSession, id: str, attempt: int, part: str | None) -> None:
    """Record which part of the service an attempt waits for; None: for nothing any more. Raises AttemptLost."""
    conversion = await _held(session, id, attempt)
    if conversion.waiting_for != part:
        conversion.waiting_for = part
        await _changed(session, conversion, "progress")


async def is_held(session: AsyncSession, id: str, attempt: int) -> bool:
    """Whether an attempt is still the conversion's current one."""
    query = select(Conversion.id).where(
        Conversion.id == id, Conversion.attempt == attempt, Conversion.state == State.running
    )
    return await session.scalar(query) is not None


async def find_held(session: AsyncSession, id: str, attempt: int) -> Conversion:
    """The conversion whose current attempt this is, locked until the transaction ends. Raises AttemptLost."""
    return await _held(session, id, attempt)


async def acquit(session: AsyncSession, ids: Sequence[str]) -> None:
    """Take back one death from each of these that has not ended: who was thought dead lives."""
    mistaken = (Conversion.id.in_(ids)) & (Conversion.workers_lost > 0) & Conversion.state.in_(UNFINISHED)
    await session.execute(update(Conversion).where(mistaken).values(workers_lost=Conversion.workers_lost - 1))


async def finish(session: AsyncSession, id: str, attempt: int, ending: Ending) -> Ending:
    """Record how an attempt ended, and its files; gives what was recorded. Raises AttemptLost.

    What ended with a verdict that the request does not accept has not succeeded.
    """
    conversion = await _held(session, id, attempt)
    if ending.state is State.succeeded:
        on_mismatch = conversion.options["on_mismatch"]
        refused = acceptance.refusal(ending.verdict, conversion.accept, on_mismatch=on_mismatch)
        ending = replace(ending, state=State.failed, problem=refused) if refused else ending
    conversion.verdict = ending.verdict.value if ending.verdict else None
    conversion.findings = [finding.model_dump(mode="json") for finding in ending.findings]
    conversion.parity = json.loads(ending.parity.model_dump_json()) if ending.parity else None
    conversion.timings = {**_fetching(conversion), **ending.timings}
    conversion.peak_memory_bytes = ending.peak_memory_bytes
    conversion.template = ending.template.model_dump(mode="json") if ending.template else None
    if ending.state is State.succeeded:
        conversion.progress = 1.0
    for file in ending.files:
        session.add(ConversionFile(conversion_id=id, **file.model_dump()))
    await end(session, conversion, ending.state, ending.problem)
    return ending


async def end(session: AsyncSession, conversion: Conversion, state: State, problem: Problem | None) -> None:
    """Put a locked conversion into a final state."""
    conversion.state = state
    conversion.problem = problem.model_dump(mode="json") if problem else None
    conversion.finished_at = func.now()
    conversion.worker_id = None
    conversion.waiting_for = None
    await publications.begin(session, conversion)
    await _changed(session, conversion, "state")


async def requeue(session: AsyncSession, conversion: Conversion) -> None:
    """Put a locked conversion back into the queue; the caller defers its new queue entry."""
    conversion.state = State.queued
    conversion.stage = None if conversion.checkpoint_sha256 else Stage.fetch.value
    conversion.progress = 0.0
    conversion.worker = None
    conversion.worker_id = None
    conversion.waiting_for = None
    conversion.started_at = None
    await _changed(session, conversion, "state")


async def reset(session: AsyncSession, conversion: Conversion) -> None:
    """Forget how a locked, finished conversion ended and queue it again."""
    await session.execute(delete(ConversionFile).where(ConversionFile.conversion_id == conversion.id))
    conversion.verdict = None
    conversion.parity = None
    conversion.findings = []
    conversion.problem = None
    conversion.template = None
    conversion.timings = _fetching(conversion)
    conversion.peak_memory_bytes = None
    conversion.finished_at = None
    conversion.expired_at = None
    conversion.workers_lost = 0
    publications.forget(conversion)
    await requeue(session, conversion)


def _fetching(conversion: Conversion) -> dict[str, Any]:
    """What fetching the file took, which no later attempt does again."""
    return {stage: seconds for stage, seconds in conversion.timings.items() if stage == Stage.fetch.value}


async def remove(session: AsyncSession, id: str) -> None:
    """Delete a finished conversion with its files' rows and events; NotFound, InUse."""
    conversion = await find_locked(session, id)
    if not conversion.state.final:
        raise InUse("The conversion has not finished.", hint="Cancel it first: POST /v1/conversions/{id}/cancel.")
    await session.delete(conversion)


async def _get(session: AsyncSession, id: str, *, lock: bool = False) -> Conversion:
    # Clients may send anything, also what PostgreSQL cannot hold in a text, such as NUL.
    found = (
        await session.get(Conversion, id, with_for_update=lock, populate_existing=lock) if ID.fullmatch(id) else None
    )
    if found is None:
        raise NotFound(f"There is no conversion {id[:SHOWN_ID]!r}.")
    return found


async def _held(session: AsyncSession, id: str, attempt: int) -> Conversion:
    query = select(Conversion).where(
        Conversion.id == id, Conversion.attempt == attempt, Conversion.state == State.running
    )
    found = (await session.scalars(query.with_for_update().execution_options(populate_existing=True))).first()
    if found is None:
        raise AttemptLost(f"{id}, attempt {attempt}")
    return found


async def _changed(session: AsyncSession, conversion: Conversion, kind: events.EventType) -> None:
    conversion.updated_at = func.now()
    await session.flush()
    await session.refresh(conversion)
    await events.record(session, conversion, kind)
