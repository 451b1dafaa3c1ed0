"""Running one queued conversion: from its queue entry to its final state."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from pydantic import BaseModel, TypeAdapter

from app.conversion.job import ConversionJob, ConversionOutcome
from app.database import checkpoints, conversions, templates
from app.database.conversions import AttemptLost, Ending
from app.database.session import Database
from app.database.tables import Conversion
from app.database.templates import BuiltElsewhere, Holder, Ready, Unsuitable
from app.domain.checkpoint import CheckpointInspection
from app.domain.conversion import Stage, State, TargetOptions
from app.domain.errors import ConversionError, MemoryEstimateExceeded, Problem, RecastError, TimedOut, Unavailable
from app.jobs import metrics, queue
from app.jobs.admission import Admission, available_cores
from app.jobs.confinement import Limits
from app.jobs.events import Changes
from app.jobs.messages import Progress, TemplateAnswer, TemplateWanted
from app.jobs.patience import DatabaseAway, patiently
from app.jobs.publishing import publish
from app.jobs.stage_seconds import StageSeconds
from app.jobs.supervisor import Supervisor, TaskFailed
from app.storage.objects import MissingObject, ObjectStore

log = structlog.get_logger(__name__)

PROGRESS_INTERVAL = 0.25
"""Least seconds between two progress events of one stage; a change of stage is always told."""
BUILDER_POLL = 5.0
"""Seconds after which a job that waits for a template looks again although nothing was announced."""

_options: TypeAdapter[TargetOptions] = TypeAdapter(TargetOptions)
_outcome = TypeAdapter(ConversionOutcome)


@dataclass(frozen=True)
class Tasks:
    """What the children of a worker run (``module:function``), and the modules that their forkserver imports first."""

    conversion: str = "app.jobs.child:run_conversion"
    inspection: str = "app.jobs.child:run_inspection"
    catalog: str = "app.jobs.child:run_catalog"
    rehearsal: str = "app.jobs.child:run_rehearsal"
    preload: tuple[str, ...] = ("app.jobs.warm",)


TASKS = Tasks()


@dataclass(frozen=True)
class Tools:
    """What a worker runs jobs with."""

    database: Database
    store: ObjectStore
    changes: Changes
    supervisor: Supervisor
    admission: Admission
    work_dir: Path
    name: str
    """The worker's name: host and process."""
    limits: Limits
    inspection_limits: Limits
    threads: int | None = None
    """Of one conversion; None: its share of the cores when it starts."""
    plugins_dir: Path | None = None
    tasks: Tasks = TASKS


async def run_conversion(tools: Tools, conversion_id: str, queue_job_id: int) -> None:
    """Run the conversion that a queue entry stands for. Nothing happens when the entry is no longer the right one.

    Cancelling this coroutine kills the child and leaves the conversion as it is.
    """
    async with tools.database.transaction() as session:
        conversion = await conversions.find(session, conversion_id)
        checkpoint = await checkpoints.find(session, conversion.checkpoint_sha256)
    attempt = partial(_attempt, tools, conversion_id, queue_job_id, checkpoint.bytes)
    try:
        wanted = tools.admission.wanted_for(checkpoint.bytes)
    except MemoryEstimateExceeded as error:
        await attempt(partial(_Attempt.fail, problem=error.problem()))
        return
    async with tools.admission.admit(wanted):
        await attempt(_Attempt.run)


async def _attempt(
    tools: Tools,
    conversion_id: str,
    queue_job_id: int,
    checkpoint_bytes: int,
    do: Callable[["_Attempt"], Awaitable[None]],
) -> None:
    """Begin an attempt and ``do`` it; nothing when the queue entry is no longer the right one."""
    async with tools.database.transaction() as session:
        started = await conversions.start(session, conversion_id, queue_job_id, tools.name)
    if started is None:
        return
    if started.attempt == 1:
        metrics.queue_seconds.observe((datetime.now(UTC) - started.created_at).total_seconds())
    metrics.children_running.inc()
    try:
        await do(_Attempt(tools, started, checkpoint_bytes))
    except AttemptLost:
        log.info("attempt_lost", conversion=conversion_id, attempt=started.attempt)
    finally:
        metrics.children_running.dec()


async def hand_back(tools: Tools, conversion_id: str, queue_job_id: int) -> None:
    """Queue a conversion again that this worker runs and will not finish."""
    async with tools.database.transaction() as session:
        conversion = await conversions.find_locked(session, conversion_id)
        if not conversion.state.final and conversion.queue_job_id == queue_job_id:
            await conversions.requeue(session, conversion)
            await queue.enqueue_conversion(session, conversion)


async def run_inspection(tools: Tools, sha256: str) -> None:
    """Read a stored checkpoint and record what was found, or why nothing was."""
    found: CheckpointInspection | Problem
    try:
        async with tools.store.local(sha256) as path:
            with TemporaryDirectory(dir=tools.work_dir, prefix="inspect-") as work:
                result = await tools.supervisor.run(
                    tools.tasks.inspection,
                    str(path),
                    limits=tools.inspection_limits,
                    work_dir=Path(work),
                    answer=_no_answer,
                )
        found = CheckpointInspection.model_validate(result)
    except TaskFailed as error:
        found = error.problem
    except MissingObject:
        found = Unavailable("The store holds no such file any more; upload it again.").problem()
    async with tools.database.transaction() as session:
        await checkpoints.record_inspection(session, sha256, found)


async def _no_answer(_: Progress | TemplateWanted) -> None:
    return None


class _Attempt:
    """One attempt at a conversion, in a directory of its own that is removed whatever happens."""

    def __init__(self, tools: Tools, conversion: Conversion, checkpoint_bytes: int) -> None:
        self._tools = tools
        self._conversion = conversion
        self._checkpoint_bytes = checkpoint_bytes
        self._holder = Holder(conversion.id, conversion.attempt)
        self._stage: Stage | None = None
        self._seconds = StageSeconds()
        self._told = 0.0
        self._kept = AsyncExitStack()

    async def run(self) -> None:
        """To the end: results published and the final state written, unless AttemptLost."""
        with TemporaryDirectory(dir=self._tools.work_dir, prefix="convert-", ignore_cleanup_errors=True) as work:
            async with self._kept:
                try:
                    await self._convert_and_publish(Path(work))
                except TaskFailed as error:
                    await self.fail(error.problem)
                except MissingObject as error:
                    await self.fail(ConversionError(f"The store no longer holds {error}; upload it again.").problem())
                except RecastError as error:
                    await self.fail(error.problem())

    async def _convert_and_publish(self, work: Path) -> None:
        results = work / "results"
        results.mkdir()
        job = await self._job(results)
        async with self._tools.supervisor.running(
            self._tools.tasks.conversion,
            TypeAdapter(ConversionJob).dump_python(job, mode="json"),
            limits=self._tools.limits.with_memory_for(self._checkpoint_bytes),
            work_dir=work,
            answer=self._answer,
        ) as result:
            outcome = _outcome.validate_python(result)
            await self._progress(Stage.publish, 0.97)
            self._count(await publish(self._tools.database, self._tools.store, self._holder, results, outcome))

    async def _job(self, results: Path) -> ConversionJob:
        tools, conversion = self._tools, self._conversion
        checkpoint = await self._kept.enter_async_context(tools.store.local(conversion.checkpoint_sha256))
        probes = None
        if conversion.probes_sha256:
            probes = await self._kept.enter_async_context(tools.store.local(conversion.probes_sha256))
        return ConversionJob(
            conversion_id=conversion.id,
            checkpoint=checkpoint,
            checkpoint_sha256=conversion.checkpoint_sha256,
            checkpoint_filename=conversion.checkpoint_filename,
            architecture=conversion.architecture,
            architecture_options=conversion.architecture_options,
            options=_options.validate_python(conversion.options),
            work_dir=results,
            plugins_dir=tools.plugins_dir,
            client_probes=probes,
            threads=tools.threads or max(1, available_cores() // tools.admission.running),
        )

    async def _answer(self, message: Progress | TemplateWanted) -> BaseModel | None:
        if isinstance(message, TemplateWanted):
            return await self._template(message.key)
        await self._progress(message.stage, message.progress)
        return None

    async def _progress(self, stage: Stage, progress: float) -> None:
        """Tell clients; a database that is away for a moment costs an event, not the job. Raises AttemptLost."""
        self._seconds.heard(stage)
        now = time.monotonic()
        if stage is self._stage and now - self._told < PROGRESS_INTERVAL:
            return
        self._stage, self._told = stage, now
        try:
            async with self._tools.database.transaction() as session:
                await conversions.advance(session, self._conversion.id, self._conversion.attempt, stage, progress)
        except DatabaseAway as error:
            log.warning("progress_not_recorded", conversion=self._conversion.id, error=str(error).splitlines()[0])

    async def _template(self, key: str) -> TemplateAnswer:
        """Find the template of a key, or the right to build it; wait while another conversion builds it."""
        while True:
            async with self._tools.database.transaction() as session:
                known = await templates.find_or_claim(session, key, self._holder)
            match known:
                case Ready(object_sha256, certificate):
                    try:
                        path = await self._kept.enter_async_context(self._tools.store.local(object_sha256))
                    except MissingObject:
                        async with self._tools.database.transaction() as session:
                            await templates.forget(session, key, object_sha256)
                        continue
                    return TemplateAnswer(state="stored", path=str(path), certificate=certificate)
                case Unsuitable(reason):
                    return TemplateAnswer(state="unsuitable", reason=reason)
                case BuiltElsewhere(builder):
                    await self._tools.changes.wait_for(builder, BUILDER_POLL)
                case _:
                    return TemplateAnswer(state="build")

    async def fail(self, problem: Problem) -> None:
        """Write the final state that a problem means. Raises AttemptLost."""
        state = State.timed_out if problem.code == TimedOut.code else State.failed
        if problem.stage is None and self._stage is not None:
            problem = problem.model_copy(update={"stage": self._stage.value})
        ending = Ending(state, problem, timings=self._seconds.until_now())
        await patiently(partial(self._record, ending))
        self._count(ending)

    async def _record(self, ending: Ending) -> None:
        async with self._tools.database.transaction() as session:
            await conversions.finish(session, self._conversion.id, self._conversion.attempt, ending)
            await templates.give_up(session, self._holder)

    def _count(self, ending: Ending) -> None:
        metrics.conversions_ended.labels(ending.state.value, self._conversion.target).inc()
        for stage, seconds in ending.timings.items():
            metrics.stage_seconds.labels(stage).observe(seconds)
        log.info(
            "conversion_ended",
            conversion=self._conversion.id,
            state=ending.state.value,
            code=ending.problem.code if ending.problem else None,
        )
