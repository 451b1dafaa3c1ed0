"""Fetching the file of a conversion that names it by a URI: by a worker itself, resumed where it breaks off.

The conversion waits in the queue meanwhile, in the stage ``fetch``; no process of it exists yet.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import structlog

from app import telemetry
from app.database import checkpoints, conversions, logs, projects
from app.database.entries import TRANSFERS, defer
from app.database.tables import Conversion
from app.domain.conversion import Stage, State
from app.domain.errors import FetchFailed, PayloadTooLarge, RecastError
from app.domain.scrubbing import scrubbed
from app.jobs import metrics, queue
from app.jobs.consumer import Job
from app.jobs.patience import SOURCE, DatabaseAway, away, patiently
from app.jobs.tools import Tools
from app.remotes.grants import without_query
from app.remotes.http import Interrupted
from app.remotes.sources import Changed, Source, source_of
from app.storage.objects import StoredObject
from app.telemetry import carried_on

log = structlog.get_logger(__name__)

PAUSES = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600))
"""Before the file is asked for again from its beginning."""
RECONNECTS = 6
"""Connections in a row that may bring nothing, once something came, before the file is left for later."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
"""Seconds before each further connection, doubled from the first."""
GRACE = 120.0
LEAST_RATE = 16 << 10
"""Bytes a second that a file must bring on the average once GRACE seconds are over: it holds a place for others."""
TOLD_EVERY = 5.0
"""Seconds between two lines of the log on how far it is."""
WATCH_INTERVAL = 1.0
MIB = 1 << 20


class _Given(Exception):
    """The conversion was canceled or belongs to another entry of the queue."""


async def fetch(tools: Tools, job: Job) -> None:
    """Fetch the file of the conversion that a queue entry stands for; nothing where it is no longer the right entry."""
    conversion = await patiently(partial(_find, tools, job))
    if conversion is None:
        return
    structlog.contextvars.bind_contextvars(request_id=conversion.request_id)
    try:
        with telemetry.continued(job.arguments, "fetch", {"recast.conversion": conversion.id}):
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_watch(tools, job))
                await _fetch(tools, job, conversion)
                watching.cancel()
    except* _Given:
        log.info("fetch_given_up", conversion=conversion.id)


async def fetch_stumbled(tools: Tools, job: Job) -> None:
    """End a conversion over whose file the worker itself stumbled."""
    await _fail(tools, job, FetchFailed("The worker stumbled over this file; its log says over what."))


async def _fetch(tools: Tools, job: Job, conversion: Conversion) -> None:
    began = time.monotonic()
    shown = without_query(conversion.source_uri or "")
    say = partial(_say, tools, job)
    await say(f"fetch {shown}")
    try:
        source = await _source(tools, conversion)
        chunks = resumed(source, limit=tools.largest_upload, say=say)
        async with aclosing(chunks):
            stored = await tools.store.receive(
                chunks, limit=tools.largest_upload, expected_sha256=conversion.source_sha256
            )
        await say(f"fetched {stored.bytes} bytes, sha256 {stored.sha256}")
        filename = PurePosixPath(unquote(urlsplit(shown).path).partition("@")[0]).name or None
        await patiently(partial(_take, tools, job, stored, filename, time.monotonic() - began))
        metrics.fetches.labels("fetched").inc()
    except (Interrupted, Changed) as error:
        await _later(tools, job, say, str(error) or "it changed meanwhile")
    except Exception as error:
        if away(error) is not None:
            await patiently(tools.store.check, partial(_wait_for, tools, job))
            await _later(tools, job, say, "a part of the service was away", None)
        elif isinstance(error, RecastError):
            await say(f"{type(error).code}: {error.detail}")
            await _fail(tools, job, error)
        else:
            raise


async def resumed(source: Source, *, limit: int, say: Callable[[str], Awaitable[None]]) -> AsyncGenerator[bytes]:
    """The bytes of a file, asked for from where they stopped when they did.

    Raises Interrupted when they will not come, Changed where they are of another file, PayloadTooLarge, and what
    opening the source raises.
    """
    began = told = time.monotonic()
    received = failures = 0
    validator: str | None = None
    while True:
        try:
            async with source.open(received, validator) as opened:
                if opened.total is not None and opened.total > limit:
                    raise PayloadTooLarge(f"The file has {opened.total} bytes; {limit} are accepted.", limit=limit)
                validator = opened.validator
                async for chunk in opened.chunks:
                    received, failures = received + len(chunk), 0
                    if received < LEAST_RATE * (time.monotonic() - began - GRACE):
                        raise FetchFailed(f"The file comes too slowly: {received} bytes in {GRACE:.0f} s and more.")
                    if time.monotonic() - told > TOLD_EVERY:
                        told = time.monotonic()
                        await say(f"{received // MIB} MiB of {'?' if opened.total is None else opened.total // MIB}")
                    yield chunk
                if opened.total is None or received >= opened.total:
                    return
                raise Interrupted("the connection closed early")
        except Interrupted as error:
            failures += 1
            if failures > (RECONNECTS if received else 1) or (received and validator is None):
                raise
            await say(f"interrupted at byte {received}: {error}")
            await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**failures) * random.uniform(0.5, 1))


async def _source(tools: Tools, conversion: Conversion) -> Source:
    async with tools.database.transaction() as session:
        owners = await projects.known_as(session, conversion.project_id)
    uri = conversion.source_uri or ""
    remote = tools.grants.find(uri, owners, "import")
    return await source_of(uri, remote, tools.egress, tools.grants, owners)


async def _find(tools: Tools, job: Job) -> Conversion | None:
    """The first conversion that waits under an entry; None where none does any more."""
    async with tools.database.transaction() as session:
        return next(iter(await conversions.awaiting(session, job.entry)), None)


async def _watch(tools: Tools, job: Job) -> None:
    while True:
        with suppress(*DatabaseAway):
            if await _find(tools, job) is None:
                raise _Given
        await tools.changes.wait_for_change(job.arguments["conversion_id"], WATCH_INTERVAL)


async def _take(tools: Tools, job: Job, stored: StoredObject, filename: str | None, seconds: float) -> None:
    """Make the file the checkpoint of all that wait for it, and let them wait for a process."""
    async with tools.database.transaction() as session:
        for conversion in await conversions.awaiting(session, job.entry):
            await checkpoints.add(session, stored.sha256, stored.bytes, filename, project=conversion.project_id)
            await conversions.fetched(session, conversion, stored.sha256, filename, seconds)
            await queue.enqueue_conversion(session, conversion)


async def _wait_for(tools: Tools, job: Job, part: str | None) -> None:
    """Tell clients what all that wait for the file wait for."""
    with suppress(*DatabaseAway):
        async with tools.database.transaction() as session:
            for conversion in await conversions.awaiting(session, job.entry):
                await conversions.wait_queued(session, conversion, part)


async def _later(
    tools: Tools, job: Job, say: Callable[[str], Awaitable[None]], why: str, part: str | None = SOURCE
) -> None:
    """Leave the file for another time, for which ``part`` is waited; after the last one the conversion fails."""
    tries = int(job.arguments.get("tries", "0"))
    if tries >= len(PAUSES):
        await _fail(tools, job, FetchFailed(f"The file could not be read: {why}."))
        return
    pause = PAUSES[tries]
    await say(f"interrupted: {why}; again in {pause.total_seconds():.0f} s")
    metrics.fetches.labels("retried").inc()

    async def put_off() -> None:
        async with tools.database.transaction() as session:
            told = {"conversion_id": job.arguments["conversion_id"], "tries": str(tries + 1)}
            entry = await defer(session, TRANSFERS, pause, **told, **carried_on())
            for conversion in await conversions.awaiting(session, job.entry):
                conversion.queue_job_id = entry
                await conversions.wait_queued(session, conversion, part)

    await patiently(put_off)


async def _fail(tools: Tools, job: Job, error: RecastError) -> None:
    error.stage = Stage.fetch.value
    metrics.fetches.labels("failed").inc()

    async def end() -> None:
        async with tools.database.transaction() as session:
            for conversion in await conversions.awaiting(session, job.entry):
                await conversions.end(session, conversion, State.failed, error.problem())

    await patiently(end)


async def _say(tools: Tools, job: Job, line: str) -> None:
    """Add a line to the logs of all that wait for the file."""
    with suppress(*DatabaseAway):
        async with tools.database.transaction() as session:
            said = scrubbed(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}") + "\n"
            for conversion in await conversions.awaiting(session, job.entry):
                await logs.append(session, conversion.id, conversion.attempt, said)
