"""Runs tasks in processes of their own: one child per task, forked from a warm forkserver, watched until it is gone.

The chain of death: when the worker dies, the kernel kills the forkserver, and with it every child (confinement.py).
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, TypeAdapter

from app.domain.conversion import Stage
from app.domain.errors import ChildCrashed, OutOfMemory, Problem, SandboxUnavailable, TimedOut
from app.domain.text import storable
from app.jobs.child_problem import retold
from app.jobs.confinement import Confined, Limits, Requirement
from app.jobs.messages import (
    MOST_MESSAGES,
    Confinement,
    Done,
    Failed,
    FromChild,
    Order,
    Progress,
    TemplateWanted,
    understood,
)
from app.jobs.process import ChildProcess, Ended, Forkserver, Places
from app.processors import bound_spinning
from app.threads import in_thread

log = structlog.get_logger(__name__)

LOG = "child.log"
"""Name of the file in the work directory that takes what a child prints."""

LAST_WORD = 2.0
"""Seconds in which a child must have ended once it has hung up or is no longer understood."""

CHECK_SECONDS = 60.0
RESTART_PAUSE = 0.1
"""Seconds before a child is started again whose forkserver died."""
SILENT = -signal.SIGTERM
"""Given as the status of a child that said nothing more and had to be ended."""

READ_AT_ONCE = 64 << 10
"""Bytes of a message that is read in the event loop itself; changing to a thread would take longer."""

Result = TypeVar("Result")
ANY_JSON: TypeAdapter[Any] = TypeAdapter(Any)

Answer = Callable[[Progress | TemplateWanted], Awaitable[BaseModel | None]]
"""Called with what a child says while it runs; what it gives is sent back to the child."""


class TaskFailed(Exception):
    """A task ended without a result; ``problem`` says why. ``killed``: its process was, and perhaps by another."""

    def __init__(self, problem: Problem, *, killed: bool = False) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.killed = killed


class FilesGone(Exception):
    """A task ended without a result, and files that it was to read are not where they were: their store is away."""


class Clock:
    """Measures the time that a child may take. It is stopped while the child waits for a part of the service that is
    away."""

    def __init__(self) -> None:
        self._running: asyncio.Timeout | None = None
        self._left: float | None = None

    @asynccontextmanager
    async def runs_for(self, seconds: float) -> AsyncIterator[None]:
        """Raises TimeoutError where the block takes longer, but for the time in which the clock was stopped."""
        async with asyncio.timeout(seconds) as running:
            self._running = running
            try:
                yield
            finally:
                self._running = self._left = None

    def stop(self) -> None:
        if self._running is not None and (ends := self._running.when()) is not None:
            self._left = ends - asyncio.get_running_loop().time()
            self._running.reschedule(None)

    def go_on(self) -> None:
        if self._running is not None and self._left is not None:
            self._running.reschedule(asyncio.get_running_loop().time() + self._left)
            self._left = None


class Supervisor:
    """Starts and ends child processes. ``preload`` names the modules that the forkserver imports before any fork.

    ``readable``: files and directories that every child may read, such as the plug-ins. ``hidden``: directories of
    which it sees nothing else. ``requirement``: what of its confinement must be in force before a child does anything.
    """

    def __init__(
        self,
        preload: tuple[str, ...],
        *,
        readable: tuple[Path, ...] = (),
        hidden: tuple[Path, ...] = (),
        requirement: Requirement = "network",
    ) -> None:
        bound_spinning()
        self.died_idle = asyncio.Event()
        """The forkserver died while nothing ran in it."""
        self._forkserver = Forkserver(preload, hidden, requirement, self._note_idle_death)
        self._ending = False
        self._readable = readable
        self._requirement = requirement
        self.confined: Confined | None = None
        """How the last child was confined; None before the first one."""
        self.confinement_changed = asyncio.Event()

    def close(self) -> None:
        """Give up the forkserver. No task may be running."""
        self._forkserver.close()

    def end_forkserver(self) -> None:
        """Kill the forkserver, so that nobody waits for the end of its imports; a child whose start waits fails."""
        self._ending = True
        self._forkserver.kill()

    def _note_idle_death(self) -> None:
        if not self._ending:
            self.died_idle.set()

    async def warm_up(self) -> None:
        """Start the forkserver; it imports in the background, and the first child waits for it."""
        self._forkserver.ensure_running()

    async def run(
        self,
        task: str,
        arguments: Any,
        *,
        limits: Limits,
        work_dir: Path,
        answer: Answer,
        readable: tuple[Path, ...] = (),
        result: TypeAdapter[Result] = ANY_JSON,
        clock: Clock | None = None,
    ) -> Result:
        """Run a task of child.py and give its result, as the type that it must have; nothing of the child is left then.

        It may read ``readable``, and write in ``work_dir / "results"`` alone, which is made where it does not exist.

        The child is not believed: a result of another type, an error that is not its to tell, too many or too long
        messages are a crash.

        Raises TaskFailed with what the task said, or with TimedOut, OutOfMemory or ChildCrashed, and FilesGone instead
        where it may have ended so because ``readable`` is away. Cancelling kills the child at once.
        """
        with _missing(readable):
            order = Order(task=task, arguments=arguments)
            ending = await self._last_word(
                order, limits, work_dir, readable=readable, answer=answer, clock=clock or Clock()
            )
            return await _believed(ending, result)

    async def _last_word(
        self,
        order: Order,
        limits: Limits,
        work_dir: Path,
        *,
        readable: tuple[Path, ...],
        answer: Answer,
        clock: Clock,
    ) -> Done | Failed:
        """The last word of a child, of which nothing is left then. Raises TaskFailed where it had none."""
        killed_before = _kernel_kills()
        async with self._child(order, limits, work_dir, readable) as (process, told):
            try:
                async with clock.runs_for(limits.timeout):
                    ending = await self._converse(*told, answer, partial(_bound, process, limits))
            except TimeoutError:
                error = TimedOut(f"It ran longer than {limits.timeout:g} seconds.")
                raise TaskFailed(error.problem()) from None
            if ending is None:
                ended = await _last_status(process)
                problem = _crash(ended, work_dir / LOG, _kernel_kills() > killed_before)
                killed = ended.status in (-signal.SIGKILL, None) and ended.excess is None
                raise TaskFailed(problem, killed=killed)
            _pass_on_tracebacks(work_dir / LOG)
        return ending

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer, enter: Callable[[Stage], None]
    ) -> Done | Failed | None:
        """Listen to a child until it has said its last word; None when it went without one. ``enter``: told of each
        stage that it begins."""
        stage = Stage.inspect
        with suppress(ConnectionError, ValueError):  # it hung up, or its line was longer than it may be
            for number in range(MOST_MESSAGES):
                line = await reader.readline()
                message = await _understood(line) if line else None
                if message is None or isinstance(message, Done | Failed):
                    return message
                if isinstance(message, Confinement):
                    if number > 0:
                        return None
                    self._note(message)
                    continue
                if isinstance(message, Progress) and message.stage is not stage:
                    enter(stage := message.stage)
                reply = await answer(message)
                if reply is not None:
                    writer.write(reply.model_dump_json().encode() + b"\n")
                    await writer.drain()
        return None

    def _note(self, message: Confinement) -> None:
        """Log how children are confined, once. Raises TaskFailed where it does not suffice."""
        confined = Confined(message.in_force, message.missing)
        if self.confined is None or confined.missing != self.confined.missing:
            tell = log.warning if confined.missing else log.info
            tell("children_confined", in_force=confined.in_force, missing=confined.missing)
            self.confined = confined
            self.confinement_changed.set()
        if not confined.suffices(self._requirement):
            refused = "; ".join(f"{layer}: {reason}" for layer, reason in confined.missing.items())
            error = SandboxUnavailable(
                f"This service requires {self._requirement} isolation, and the platform refuses it: {refused}."
            )
            raise TaskFailed(error.problem())

    @asynccontextmanager
    async def _child(
        self, order: Order, limits: Limits, work_dir: Path, readable: tuple[Path, ...]
    ) -> AsyncIterator[tuple[ChildProcess, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
        """A child that has its order; nothing of it is left after the block."""
        places = _places(work_dir, (*self._readable, *readable))
        process = await self._started(limits, work_dir, places)
        try:
            reader, writer = await asyncio.open_connection(sock=process.line, limit=limits.message_bytes)
            try:
                writer.write(order.model_dump_json().encode() + b"\n")
                yield process, (reader, writer)
            finally:
                process.kill()
                await process.gone()
                writer.close()
        finally:
            process.kill()
            await process.gone()
            process.line.close()

    async def _started(self, limits: Limits, work_dir: Path, places: Places) -> ChildProcess:
        """A child that runs; another where the forkserver died before it did."""
        while True:
            process = self._forkserver.fork(limits, places, work_dir / LOG)
            try:
                made = await asyncio.shield(process.started)
            except asyncio.CancelledError:
                process.kill()
                await process.gone()
                process.line.close()
                raise
            if made:
                return process
            process.line.close()
            if self._ending:
                raise EOFError("the forkserver was ended")
            log.warning("forkserver_lost")
            await asyncio.sleep(RESTART_PAUSE)


def _bound(process: ChildProcess, limits: Limits, stage: Stage) -> None:
    """What a child may take of the processor in a stage that it says to begin.

    A file and its options are worked on before its architecture's code runs; a child that runs hostile code may say
    another stage, and is bounded by its timeout alone.
    """
    process.bound_processor(limits.processor.get(stage))


async def confinement_here() -> Confined:
    """How a child would be confined on this machine, found out by making one. Raises TaskFailed."""
    supervisor = Supervisor(("app.jobs.child",), requirement="none")
    try:
        with TemporaryDirectory(prefix="recast-") as work:
            limits = Limits(timeout=CHECK_SECONDS)
            await supervisor.run(
                "app.jobs.child:run_nothing", None, limits=limits, work_dir=Path(work), answer=_silence
            )
    finally:
        supervisor.close()
    assert supervisor.confined
    return supervisor.confined


async def _silence(_: Progress | TemplateWanted) -> None:
    return None


@contextmanager
def _missing(readable: tuple[Path, ...]) -> Iterator[None]:
    """Raises FilesGone for a TaskFailed of the block where any of these files is not there."""
    try:
        yield
    except TaskFailed as error:
        if all(path.exists() for path in readable):
            raise
        log.warning("files_gone", error=error.problem.detail)
        raise FilesGone from error


def _places(work_dir: Path, readable: tuple[Path, ...]) -> Places:
    """The directories of one child in its work directory, of which it may write in two."""
    results, temporary, root = (work_dir / name for name in ("results", "temporary", "root"))
    for directory in (results, temporary, root):
        directory.mkdir(exist_ok=True)
    return Places(readable=readable, writable=(results,), temporary=temporary, root=root)


async def _last_status(process: ChildProcess) -> Ended:
    """How a child ended that went silent: of its own accord where it ends soon, else killed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORD):
            return await asyncio.shield(process.ended)
    process.kill()
    await process.gone()
    return replace(process.ended.result(), status=SILENT)


async def _understood(line: bytes) -> FromChild | None:
    """A child's message; None, which is a crash, where it is none. Long ones are read without holding others up."""
    try:
        if len(line) > READ_AT_ONCE:
            return await in_thread(partial(understood, line))
        return understood(line)
    except (ValueError, RecursionError):
        log.warning("child_not_understood", line=line[:200])
        return None


async def _believed(ending: Done | Failed, result: TypeAdapter[Result]) -> Result:
    """The result of a task, held to its type. Raises TaskFailed."""
    try:
        if isinstance(ending, Failed):
            raise TaskFailed(retold(ending.problem))
        return await in_thread(partial(result.validate_python, ending.result))
    except (ValueError, RecursionError) as error:
        log.error("child_not_believed", reason=storable(str(error), 500))
        raise TaskFailed(ChildCrashed("The conversion process told what cannot be its result.").problem()) from None


def _crash(ended: Ended, log_path: Path, kernel_killed: bool) -> Problem:
    """Why a child went without a word. The end of what it printed goes to our log, not to the client."""
    said, status = _tail(log_path), ended.status
    if ended.excess == "memory":
        return OutOfMemory("The conversion and what it started used more memory than it may.").problem()
    if ended.excess == "processor":
        return TimedOut("It took more processor time than this stage may.").problem()
    if ended.excess:
        return ChildCrashed(f"The conversion used more of this than it may: {ended.excess}.").problem()
    log.error("child_crashed", status=status, said=said)
    if status is None:
        return ChildCrashed("The conversion process ended with what it was forked from.").problem()
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    if status == -signal.SIGSYS:
        name = "SIGSYS, as one does that kills itself"
    if "bad_alloc" in said or (status == -signal.SIGKILL and kernel_killed):
        return OutOfMemory(f"The conversion process was ended for its use of memory ({name}).").problem()
    return ChildCrashed(f"The conversion process ended with {name}.").problem()


def _pass_on_tracebacks(log_path: Path) -> None:
    """What a child logged of errors that it did not foresee, of checks and diagnoses too, into our own log."""
    said = _tail(log_path)
    if "Traceback (most recent call last)" in said:
        log.warning("child_logged_an_error", said=said)


def _tail(path: Path, length: int = 4000) -> str:
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - length))
        return file.read().decode(errors="replace")
    return ""


def _kernel_kills() -> int:
    """How many processes the kernel has killed so far because memory ran out (/proc/vmstat, Linux 4.13 and later)."""
    with suppress(FileNotFoundError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
