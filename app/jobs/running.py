"""Running what a queue entry stands for: a conversion, or the reading of a checkpoint."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from functools import partial

import structlog

from app import telemetry
from app.database import checkpoints, conversions, limits
from app.database.conversions import AttemptLost
from app.database.tables import CheckpointOwner, Conversion
from app.domain.conversion import State
from app.domain.errors import (
    InvalidOptions,
    MemoryEstimateExceeded,
    NotFound,
    TargetNotInstalled,
    UnknownCheckpoint,
    WorkerLost,
)
from app.jobs import fairness, metrics, queue
from app.jobs.attempt import Attempt
from app.jobs.consumer import Job, Postponed
from app.jobs.patience import DatabaseAway, patiently
from app.jobs.reading import Reading
from app.jobs.recipes import built_of
from app.jobs.suspicion import control_left
from app.jobs.tools import TASKS, Tasks, Tools

__all__ = ["TASKS", "Tasks", "Tools"]

log = structlog.get_logger(__name__)

MOST_ATTEMPTS = 100
"""Times that a conversion is begun, whatever ended the earlier ones. Being told to stop counts against nobody, and a
conversion that has its machine drained each time (for memory or disk that runs short) would come again without end."""
_NEVER_ENDED = WorkerLost(
    f"It was begun {MOST_ATTEMPTS} times, after losses of its workers or retries, and did not succeed; it is not begun "
    "again. Submit it anew."
)
_STUMBLED = WorkerLost("The worker stumbled over this again and again; its log says over what.")


async def run_conversion(tools: Tools, job: Job) -> None:
    """Run the conversion that a queue entry stands for. Nothing happens when the entry is no longer the right one.

    Cancelling this coroutine kills the child and leaves the conversion as it is. Raises Postponed.
    """
    conversion_id = job.arguments["conversion_id"]
    try:
        conversion, owned = await patiently(partial(_find, tools, conversion_id))
    except NotFound:
        log.info("conversion_deleted", conversion=conversion_id)
        return
    await _postpone_in_doubt(tools, conversion_id, conversion.workers_lost)
    base = await patiently(partial(built_of, tools, conversion))
    await patiently(partial(tools.offer.make_sure, tools.database, base))
    attempt = partial(_attempt, tools, job, owned.file.bytes if owned else 0)
    if conversion.attempt >= MOST_ATTEMPTS:
        await attempt(0, partial(Attempt.fail, problem=_NEVER_ENDED.problem()))
        return
    if owned is None:
        error = UnknownCheckpoint("The checkpoint of this conversion is no longer there; upload it again.")
        await attempt(0, partial(Attempt.fail, problem=error.problem()))
        return
    try:
        await patiently(partial(tools.offer.make_sure_of, tools.database, conversion.needs, conversion.created_at))
        wanted = tools.admission.wanted_for(loaded_bytes(owned, conversion), sample_elements(conversion))
    except (InvalidOptions, TargetNotInstalled, MemoryEstimateExceeded) as error:
        await attempt(0, partial(Attempt.fail, problem=error.problem()))
        return
    async with _place(tools, conversion.workers_lost), tools.admission.admit(wanted):
        await attempt(wanted, Attempt.run)


async def _postpone_in_doubt(tools: Tools, one: str, losses: int) -> None:
    """Raises Postponed where this worker has not lived for long enough without ``one``, which one more death may
    condemn."""
    if not losses:
        return

    async def control() -> float:
        lived = time.monotonic() - tools.since
        async with tools.database.transaction() as session:
            return await control_left(
                session, one, losses, lived=lived, max_attempts=tools.max_attempts, lost_after=tools.lost_after
            )

    left = await patiently(control)
    if left > 0:
        raise Postponed(left)


def _place(tools: Tools, losses: int) -> AbstractAsyncContextManager[None]:
    """Alone for what deaths point at, beside others for what none does."""
    return tools.isolation.alone() if losses else tools.isolation.beside()


def loaded_bytes(owned: CheckpointOwner, conversion: Conversion) -> int:
    """What of the file is loaded: all, where it was not read yet, or where the client chose a part that was not read.

    A checkpoint of a training run may be optimizer state for the most part.
    """
    whole = owned.file.bytes
    if owned.inspection is None:
        return whole
    key = conversion.options.get("checkpoint_key")
    if key not in (None, "auto", ".".join(owned.inspection.get("nesting", ()))):
        return whole
    return min(whole, int(owned.inspection.get("tensor_bytes", whole)))


def sample_elements(conversion: Conversion) -> int:
    """Elements of the example inputs that the client asked for."""
    shapes: dict[str, list[int]] = conversion.options.get("example_shapes") or {}
    return sum(math.prod(shape) for shape in shapes.values())


async def _find(tools: Tools, conversion_id: str) -> tuple[Conversion, CheckpointOwner | None]:
    """A conversion and its checkpoint; None when that was deleted. Raises NotFound."""
    async with tools.database.transaction() as session:
        conversion = await conversions.find(session, conversion_id)
        with suppress(UnknownCheckpoint):
            sha256, project = conversion.checkpoint_sha256, conversion.project_id
            return conversion, await checkpoints.owner(session, sha256, project)
        return conversion, None


async def _attempt(
    tools: Tools, job: Job, checkpoint_bytes: int, memory: int, do: Callable[[Attempt], Awaitable[None]]
) -> None:
    """Begin an attempt, with so many bytes of memory, and ``do`` it; nothing when the queue entry is no longer the
    right one."""
    conversion_id = job.arguments["conversion_id"]

    async def start() -> Conversion | None:
        async with tools.database.transaction() as session:
            return await conversions.start(session, conversion_id, job.entry, tools.name, job.worker_id)

    started = await patiently(start)
    if started is None:
        return
    structlog.contextvars.bind_contextvars(request_id=started.request_id)
    if started.attempt == 1:
        metrics.queue_seconds.observe((datetime.now(UTC) - started.created_at).total_seconds())
    tools.running.add(conversion_id)
    attempt = Attempt(tools, started, job, checkpoint_bytes, memory)
    began = time.monotonic()
    described = {
        "recast.conversion": conversion_id,
        "recast.architecture": started.architecture,
        "recast.target": started.target,
        "recast.attempt": started.attempt,
    }
    try:
        with telemetry.continued(job.arguments, "convert", described):
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(attempt.watch())
                await do(attempt)
                watching.cancel()
    except* AttemptLost:
        log.info("attempt_lost", conversion=conversion_id, attempt=started.attempt)
    finally:
        tools.running.discard(conversion_id)
    with suppress(*DatabaseAway):
        await _charge(tools, started.project_id, time.monotonic() - began)


async def _charge(tools: Tools, project: str, seconds: float) -> None:
    """Count what a project was served, for whose turn it is next."""
    async with tools.database.transaction() as session:
        share = (await limits.of(session, project)).share or 1.0
        await fairness.charge(session, project, seconds, share)


async def hand_back_conversion(tools: Tools, job: Job) -> None:
    """Let a conversion wait in the queue again that this worker has taken and will not finish."""
    async with tools.database.transaction() as session:
        with suppress(NotFound):
            conversion = await conversions.find_locked(session, job.arguments["conversion_id"])
            if conversion.state is State.running and conversion.worker_id == job.worker_id:
                await conversions.requeue(session, conversion)
        await queue.put_back(session, queue.CONVERSIONS, job.entry)


async def hand_back_entry(tools: Tools, job: Job) -> None:
    """Let an entry of a REPEATABLE queue wait again."""
    async with tools.database.transaction() as session:
        await queue.put_back(session, job.queue, job.entry)


async def conversion_stumbled(tools: Tools, job: Job) -> None:
    """Try a conversion again over which the worker itself stumbled; end it when that happens too often."""
    async with tools.database.transaction() as session:
        with suppress(NotFound):
            conversion = await conversions.find_locked(session, job.arguments["conversion_id"])
            begun = conversion.state is State.running and conversion.worker_id == job.worker_id
            if not begun and (conversion.state is not State.queued or conversion.queue_job_id != job.entry):
                return
            conversion.workers_lost += 1
            if conversion.workers_lost >= tools.max_attempts:
                await conversions.end(session, conversion, State.failed, _STUMBLED.problem())
                return
            if begun:
                await conversions.requeue(session, conversion)
            await queue.enqueue_conversion(session, conversion)


async def run_inspection(tools: Tools, job: Job) -> None:
    """Read the checkpoint that a queue entry stands for. Nothing happens when the entry is no longer the right one.

    Raises Postponed.
    """
    sha256 = job.arguments["sha256"]
    losses = await patiently(partial(_losses, tools, sha256))
    if losses is None:
        log.info("checkpoint_deleted", checkpoint=sha256)
        return
    await _postpone_in_doubt(tools, sha256, losses)
    async with _place(tools, losses):
        await Reading(tools, sha256, job).run()


async def _losses(tools: Tools, sha256: str) -> int | None:
    """How many deaths point at a checkpoint; None when it was deleted."""
    async with tools.database.transaction() as session:
        with suppress(UnknownCheckpoint):
            return (await checkpoints.find(session, sha256)).inspection_attempts
        return None


async def hand_back_inspection(tools: Tools, job: Job) -> None:
    """Let the reading of a checkpoint wait in the queue again that this worker has taken and will not finish."""
    async with tools.database.transaction() as session:
        await checkpoints.end_reading(session, job.arguments["sha256"], job.worker_id)
        await queue.put_back(session, queue.INSPECTIONS, job.entry)


async def inspection_stumbled(tools: Tools, job: Job) -> None:
    """Try a reading again over which the worker itself stumbled; end it when that happens too often."""
    sha256 = job.arguments["sha256"]
    async with tools.database.transaction() as session:
        with suppress(UnknownCheckpoint):
            checkpoint = await checkpoints.find_locked(session, sha256)
            if checkpoint.worker_id not in (None, job.worker_id) or checkpoint.queue_job_id != job.entry:
                return
            checkpoint.inspection_attempts += 1
            checkpoint.worker_id = None
            await session.flush()
            if checkpoint.inspection_attempts >= tools.max_attempts:
                await checkpoints.record_inspection(session, sha256, _STUMBLED.problem())
                return
            await queue.enqueue_inspection(session, checkpoint)
