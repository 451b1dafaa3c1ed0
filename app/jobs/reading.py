"""Reading one checkpoint for a queue entry: what is in the file, or why there is nothing."""

from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial

import structlog
from pydantic import TypeAdapter

from app.database import checkpoints, deaths
from app.database.tables import Checkpoint
from app.domain.checkpoint import CheckpointInspection
from app.domain.errors import ChildCrashed, OutOfMemory, Problem, Unavailable
from app.jobs import queue
from app.jobs.admission import processor_seconds
from app.jobs.consumer import Job
from app.jobs.disk import Disk
from app.jobs.messages import Progress, TemplateWanted
from app.jobs.patience import DATABASE, DatabaseAway, away, patiently
from app.jobs.publishing import NotStorable
from app.jobs.scratch import scratch_directory
from app.jobs.supervisor import FilesGone, TaskFailed
from app.jobs.suspicion import suspect
from app.jobs.tools import Tools
from app.storage.objects import MissingObject

log = structlog.get_logger(__name__)

_inspection = TypeAdapter(CheckpointInspection)


class Reading:
    """The reading of one checkpoint by this worker."""

    def __init__(self, tools: Tools, sha256: str, job: Job) -> None:
        self._tools = tools
        self._sha256 = sha256
        self._job = job

    async def run(self) -> None:
        """To the end: what was found is recorded, or the reading is queued again."""
        if await patiently(self._begin) is None:
            return
        self._tools.running.add(self._sha256)
        try:
            found = await self._found()
        finally:
            self._tools.running.discard(self._sha256)
        if found is not None:
            await patiently(partial(self._record, found))

    async def _begin(self) -> Checkpoint | None:
        async with self._tools.database.transaction() as session:
            return await checkpoints.begin_reading(session, self._sha256, self._job.entry, self._job.worker_id)

    async def _found(self) -> CheckpointInspection | Problem | None:
        """What the file holds, or why nothing; None when it is to be read once more."""
        disk = Disk(self._tools.work_dir, files=0)
        while True:
            await disk.before_a_try(self._waiting)
            self._job.idle = False
            try:
                async with disk.watched():
                    return await self._read()
            except FilesGone:
                continue
            except TaskFailed as error:
                if not disk.ended(error.problem):
                    return await self._blamed(error)
            except MissingObject:
                return Unavailable("The store holds no such file any more; upload it again.").problem()
            except OSError as error:
                if away(error) is None:
                    raise
            await disk.until_room(self._waiting)

    async def _read(self) -> CheckpointInspection:
        store = self._tools.store
        async with AsyncExitStack() as kept:
            path = await patiently(lambda: kept.enter_async_context(store.local(self._sha256)), self._waiting)
            self._job.idle = False
            with scratch_directory(self._tools.work_dir, "inspect-") as work:
                return await self._tools.supervisor.run(
                    self._tools.tasks.inspection,
                    str(path),
                    limits=replace(
                        self._tools.inspection_limits.with_memory_for(path.stat().st_size),
                        processor=processor_seconds(path.stat().st_size),
                    ),
                    work_dir=work,
                    answer=_no_answer,
                    readable=(path,),
                    result=_inspection,
                )

    async def _blamed(self, error: TaskFailed) -> Problem | None:
        """What the process did wrong; None when it was killed, perhaps by another, and is to have one more try."""
        together = set(self._tools.running)
        if not error.killed or (error.problem.code == OutOfMemory.code and len(together) == 1):
            return error.problem
        return error.problem if await patiently(partial(self._condemned, together)) else None

    async def _condemned(self, together: set[str]) -> bool:
        async with self._tools.database.transaction() as session:
            checkpoint = await checkpoints.find_locked(session, self._sha256)
            await deaths.record(session, together)
            attempts = checkpoint.inspection_attempts
            found = await suspect(session, self._sha256, attempts, together, self._tools.max_attempts)
            checkpoint.inspection_attempts = found.losses
            if not found.condemned:
                checkpoint.worker_id = None
                await queue.enqueue_inspection(session, checkpoint)
            return found.condemned

    async def _record(self, found: CheckpointInspection | Problem) -> None:
        """What the database cannot hold is no inspection."""
        try:
            async with self._tools.database.transaction() as session:
                await checkpoints.record_inspection(session, self._sha256, found)
        except NotStorable as error:
            log.error("child_not_believed", checkpoint=self._sha256, reason=str(error).splitlines()[0])
            problem = ChildCrashed("The process that read the file told what cannot be stored.").problem()
            async with self._tools.database.transaction() as session:
                await checkpoints.record_inspection(session, self._sha256, problem)

    async def _waiting(self, part: str | None) -> None:
        """Tell clients what the reading waits for."""
        self._job.idle = part is not None
        if part != DATABASE:
            with suppress(*DatabaseAway):
                async with self._tools.database.transaction() as session:
                    await checkpoints.wait_for(session, self._sha256, part)


async def _no_answer(_: Progress | TemplateWanted) -> None:
    return None
