"""One attempt at a conversion: from its start to its final state, or back to the queue."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog
from pydantic import BaseModel, TypeAdapter

from app import telemetry
from app.conversion.job import ConversionJob, ConversionOutcome
from app.database import conversions, deaths, templates
from app.database.conversions import AttemptLost, Ending
from app.database.tables import Conversion
from app.database.templates import BuiltElsewhere, Granted, Holder, Ready, Unsuitable
from app.domain.conversion import Stage, State
from app.domain.errors import ChildCrashed, ConversionError, OutOfMemory, Problem, RecastError, TimedOut
from app.jobs import metrics, queue
from app.jobs.admission import processor_seconds
from app.jobs.confinement import Limits
from app.jobs.consumer import Job
from app.jobs.conversion_log import ConversionLog
from app.jobs.disk import Disk
from app.jobs.messages import Progress, TemplateAnswer, TemplateWanted
from app.jobs.patience import DATABASE, DatabaseAway, away, patiently
from app.jobs.publishing import NotStorable, Origin, publish
from app.jobs.recipes import recipe_of
from app.jobs.results import ResultsDirectory
from app.jobs.scratch import scratch_directory
from app.jobs.stage_seconds import StageSeconds
from app.jobs.supervisor import LOG, Clock, FilesGone, TaskFailed
from app.jobs.suspicion import suspect
from app.jobs.tools import Tools
from app.processors import available_cores
from app.storage.objects import MissingObject
from app.targets.abilities import understood
from app.targets.specs import OPTIONS
from app.threads import in_thread

log = structlog.get_logger(__name__)

PROGRESS_INTERVAL = 0.25
"""Least seconds between two progress events of one stage; a change of stage is always told."""
MOST_STAGE_CHANGES = 100
"""Changes of stage that are told at once: a conversion goes back once for every exporter that was refused."""
MOST_TEMPLATES = 8
"""Templates that one conversion may ask for; it needs one."""
BUILDER_POLL = 5.0
"""Seconds after which a job that waits for a template looks again although nothing was announced."""
WATCH_INTERVAL = 1.0
"""Seconds after which an attempt looks whether it still counts although nothing was announced."""
FILES_PER_CHECKPOINT = 2
"""Files as large as its checkpoint that a conversion writes: the artifact and the template, or golden data."""

LARGEST_PER_CHECKPOINT = 4
"""How often the size of the checkpoint the largest file may have: in a format of other precision, or with folds."""
SMALL_FILES = 2 << 30
"""Bytes of the largest file beside that: golden data, logs, what a library puts in /tmp."""
DISK_PER_FILE = 3
"""How often the largest file all files together may be."""

_outcome = TypeAdapter(ConversionOutcome)


class Attempt:
    """One attempt at a conversion, in a directory of its own that is removed whatever happens."""

    def __init__(self, tools: Tools, conversion: Conversion, job: Job, checkpoint_bytes: int, memory: int) -> None:
        self._tools = tools
        self._conversion = conversion
        self._job = job
        self._checkpoint_bytes = checkpoint_bytes
        self._memory = memory
        """Bytes that it was admitted with, and its limit where no setting says another."""
        self._holder = Holder(conversion.id, conversion.attempt, conversion.project_id, conversion.architecture)
        self._log = ConversionLog(tools.database, self._holder)
        self._stage: Stage | None = None
        self._seconds = StageSeconds()
        self._told = 0.0
        self._stage_changes = 0
        self._told_templates: dict[str, str] = {}
        """What the child was told of the templates that it asked for."""
        self._clock = Clock()
        self._kept = AsyncExitStack()
        self._inputs = Path()
        """What its process may read beside its checkpoint: what is put there later is seen there."""
        self._verifying = asyncio.Event()
        """The verification of files that were written has begun."""
        self._has_result = False
        self._ending = False
        """Its end is being written; whether it is still the current attempt, the writing finds out."""

    async def watch(self) -> None:
        """Raises AttemptLost once the conversion was canceled, or given to another worker."""
        while True:
            with suppress(*DatabaseAway):
                async with self._tools.database.transaction() as session:
                    if not await conversions.is_held(session, self._conversion.id, self._conversion.attempt):
                        if self._ending:
                            return
                        raise AttemptLost(self._conversion.id)
            await self._tools.changes.wait_for_change(self._conversion.id, WATCH_INTERVAL)

    async def run(self) -> None:
        """To the end: results published and the final state written, or queued again, unless AttemptLost."""
        try:
            await self._run()
        finally:
            self._seconds.end_span()

    async def _run(self) -> None:
        disk = Disk(self._tools.work_dir, FILES_PER_CHECKPOINT * self._checkpoint_bytes)
        while True:
            await disk.before_a_try(self._waiting)
            self._job.idle = False
            try:
                async with disk.watched():
                    await self._convert_and_publish()
            except FilesGone:
                continue
            except TaskFailed as error:
                if not disk.ended(error.problem):
                    await self._failed(error)
                    return
            except MissingObject as error:
                await self.fail(ConversionError(f"The store no longer holds {error}; upload it again.").problem())
                return
            except RecastError as error:
                await self.fail(error.problem())
                return
            except OSError as error:
                if away(error) is None:
                    raise
            else:
                return
            await disk.until_room(self._waiting)

    async def _failed(self, error: TaskFailed) -> None:
        """End the conversion for what its process did; one whose process was killed is tried again, alone."""
        together = set(self._tools.running)
        if not error.killed or (error.problem.code == OutOfMemory.code and len(together) == 1):
            await self.fail(error.problem)
            return

        async def blame() -> bool:
            async with self._tools.database.transaction() as session:
                conversion = await conversions.find_held(session, self._conversion.id, self._conversion.attempt)
                await deaths.record(session, together)
                found = await suspect(
                    session, conversion.id, conversion.workers_lost, together, self._tools.max_attempts
                )
                conversion.workers_lost = found.losses
                if not found.condemned:
                    await templates.give_up(session, self._holder)
                    await conversions.requeue(session, conversion)
                    await queue.enqueue_conversion(session, conversion)
                return found.condemned

        self._ending = True
        metrics.deaths.labels("child").inc()
        if await patiently(blame):
            await self.fail(error.problem)
        else:
            log.warning("conversion_killed", conversion=self._conversion.id, running=sorted(together))

    async def _waiting(self, part: str | None) -> None:
        """Tell clients what the attempt waits for. Its time stands still meanwhile; as long as there is no result yet,
        it may be handed back."""
        if part is None:
            self._clock.go_on()
        else:
            self._clock.stop()
        self._job.idle = part is not None and not self._has_result
        if part != DATABASE:
            with suppress(*DatabaseAway):
                async with self._tools.database.transaction() as session:
                    await conversions.wait_for(session, self._conversion.id, self._conversion.attempt, part)

    async def _convert_and_publish(self) -> None:
        directory = self._tools.work_dir
        with scratch_directory(directory, "convert-") as work:
            async with AsyncExitStack() as self._kept:
                self._inputs = work / "inputs"
                self._inputs.mkdir()
                with ResultsDirectory(work / "results") as results:
                    await self._convert(work, results)

    async def _convert(self, work: Path, results: ResultsDirectory) -> None:
        job = await self._described(results.path)
        self._job.idle = False
        tools = self._tools
        async with self._log.following(work / LOG), self._flushed_beside(results):
            outcome = await tools.supervisor.run(
                tools.tasks.conversion,
                TypeAdapter(ConversionJob).dump_python(job, mode="json"),
                limits=self._limits(),
                work_dir=work,
                answer=self._answer,
                readable=(self._inputs, *filter(None, (job.checkpoint, job.client_probes))),
                result=_outcome,
                clock=self._clock,
            )
        await self._progress(Stage.publish, 0.97)
        self._has_result = self._ending = True
        origin = Origin(job, self._holder, self._told_templates)
        try:
            ending = await publish(
                tools.database,
                tools.store,
                origin,
                results,
                outcome,
                signer=await tools.signing.signer(),
                tell=self._waiting,
            )
        except NotStorable as error:
            log.error("child_not_believed", conversion=self._conversion.id, reason=str(error).splitlines()[0])
            raise ChildCrashed("The conversion process told what cannot be stored.") from None
        self._count(ending)

    @asynccontextmanager
    async def _flushed_beside(self, results: ResultsDirectory) -> AsyncIterator[None]:
        """For the block, flush what was written whenever its verification begins, so that little is left to flush when
        it is published."""

        async def flush() -> None:
            while True:
                await self._verifying.wait()
                self._verifying.clear()
                await in_thread(results.flush)

        flushing = asyncio.create_task(flush())
        try:
            yield
        finally:
            flushing.cancel()
            await asyncio.wait([flushing])

    def _limits(self) -> Limits:
        """What its process may use. A file of it is no larger than its weights make it, with room for what is small."""
        limits = self._tools.limits
        largest = LARGEST_PER_CHECKPOINT * self._checkpoint_bytes + SMALL_FILES
        file_bytes = min(largest, limits.file_bytes or largest)
        return replace(
            limits,
            timeout=min(limits.timeout, self._conversion.timeout or limits.timeout),
            memory=(limits.memory or self._memory) + self._checkpoint_bytes,  # which is mapped, copied on write
            file_bytes=file_bytes,
            disk_bytes=DISK_PER_FILE * file_bytes,
            processor=processor_seconds(self._checkpoint_bytes),
        )

    async def _described(self, results: Path) -> ConversionJob:
        tools, conversion = self._tools, self._conversion
        checkpoint = await self._local(conversion.checkpoint_sha256)
        probes = await self._local(conversion.probes_sha256) if conversion.probes_sha256 else None
        recipe = await patiently(partial(recipe_of, tools, conversion))
        return ConversionJob(
            conversion_id=conversion.id,
            checkpoint=checkpoint,
            checkpoint_sha256=conversion.checkpoint_sha256,
            checkpoint_filename=conversion.checkpoint_filename,
            architecture=conversion.architecture,
            architecture_options=conversion.architecture_options,
            options=OPTIONS.validate_python(understood(conversion.options)),
            work_dir=results,
            plugins_dir=tools.plugins_dir,
            plugin=tools.offer.plugin_of(conversion.architecture if recipe is None else recipe.base),
            recipe=recipe,
            client_probes=probes,
            threads=tools.threads or max(1, available_cores() // tools.admission.running),
        )

    async def _local(self, sha256: str) -> Path:
        """A file with an object's bytes, as long as the attempt lasts. Raises MissingObject."""
        store, kept = self._tools.store, self._kept
        return await patiently(lambda: kept.enter_async_context(store.local(sha256)), self._waiting)

    async def _answer(self, message: Progress | TemplateWanted) -> BaseModel | None:
        if isinstance(message, TemplateWanted):
            if len(self._told_templates) >= MOST_TEMPLATES:
                raise ChildCrashed("The conversion process asked for too many templates.")
            try:
                answer = await self._template(message.key)
            finally:
                self._clock.go_on()
            self._told_templates[message.key] = answer.state
            return answer
        await self._progress(message.stage, message.progress)
        return None

    async def _progress(self, stage: Stage, progress: float) -> None:
        """Tell clients; a database that is away for a moment costs an event, not the job. Raises AttemptLost."""
        self._seconds.heard(stage)
        if stage is Stage.verify and stage is not self._stage:
            self._verifying.set()
        now = time.monotonic()
        self._stage_changes += stage is not self._stage
        if (stage is self._stage or self._stage_changes > MOST_STAGE_CHANGES) and now - self._told < PROGRESS_INTERVAL:
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
            match await patiently(partial(self._find_template, key), self._waiting):
                case Ready(object_sha256, certificate):
                    try:
                        path = await self._local(object_sha256)
                    except MissingObject:
                        await patiently(partial(self._forget_template, key, object_sha256), self._waiting)
                        continue
                    shown = await in_thread(partial(_show, path, self._inputs / key))
                    return TemplateAnswer(state="stored", path=str(shown), certificate=certificate)
                case Unsuitable(reason):
                    return TemplateAnswer(state="unsuitable", reason=reason)
                case BuiltElsewhere(builder):
                    await self._tools.changes.wait_for_change(builder, BUILDER_POLL)
                case _:
                    return TemplateAnswer(state="build")

    async def _find_template(self, key: str) -> Ready | Unsuitable | Granted | BuiltElsewhere:
        async with self._tools.database.transaction() as session:
            return await templates.find_or_claim(session, key, self._holder)

    async def _forget_template(self, key: str, object_sha256: str) -> None:
        async with self._tools.database.transaction() as session:
            await templates.forget(session, key, self._holder, object_sha256)

    async def fail(self, problem: Problem) -> None:
        """Write the final state that a problem means. Raises AttemptLost."""
        state = State.timed_out if problem.code == TimedOut.code else State.failed
        if problem.stage is None and self._stage is not None:
            problem = problem.model_copy(update={"stage": self._stage.value})
        ending = Ending(state, problem, timings=self._seconds.until_now())
        self._ending = True
        await patiently(partial(self._record, ending))
        self._count(ending)

    async def _record(self, ending: Ending) -> None:
        async with self._tools.database.transaction() as session:
            await conversions.finish(session, self._conversion.id, self._conversion.attempt, ending)
            await templates.give_up(session, self._holder)

    def _count(self, ending: Ending) -> None:
        code = ending.problem.code if ending.problem else None
        telemetry.tell_end(ending.state.value, ending.verdict and ending.verdict.value, code)
        metrics.conversions_ended.labels(ending.state.value, self._conversion.target).inc()
        for stage, seconds in ending.timings.items():
            metrics.stage_seconds.labels(stage).observe(seconds)
        log.info(
            "conversion_ended",
            conversion=self._conversion.id,
            state=ending.state.value,
            code=code,
        )


def _show(path: Path, place: Path) -> Path:
    """Let a file be seen at a place too, without a copy where possible. It is read only there."""
    try:
        os.link(path, place)
    except OSError:  # another file system, or a file that is another user's
        shutil.copyfile(path, place)
        place.chmod(0o444)
    return place
