"""Runs tasks in processes of their own: one child per task, forked from a warm forkserver, watched until it is gone.

The chain of death: when the worker dies, the kernel kills the forkserver, and with it every child (confinement.py).
"""

import asyncio
import multiprocessing
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, TypeAdapter

from app.domain.errors import ChildCrashed, OutOfMemory, Problem, TimedOut
from app.domain.text import storable
from app.jobs import child
from app.jobs.child_problem import retold
from app.jobs.confinement import Limits
from app.jobs.messages import MOST_MESSAGES, Done, Failed, FromChild, Progress, TemplateWanted, Unconfined, understood
from app.jobs.process import ChildProcess
from app.processors import bound_spinning
from app.threads import in_thread

log = structlog.get_logger(__name__)

LOG = "child.log"
"""Name of the file in the work directory that takes what a child prints."""

LAST_WORD = 2.0
"""Seconds in which a child must have ended once it has hung up or is no longer understood."""

RESTART_PAUSE = 0.1
"""Seconds before a child is started again whose forkserver died."""
FORKSERVER_GONE = 255
"""What multiprocessing gives as the status of a child that died with its forkserver."""
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


class Supervisor:
    """Starts and ends child processes. ``preload`` names the modules that the forkserver imports before any fork."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        bound_spinning()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["app.jobs.mortal", *preload, "__main__"])
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starter")
        """The one thread that uses multiprocessing, which is not made for several. The forkserver lives no longer."""
        self._ending = False
        self.unconfined: frozenset[str] = frozenset()
        """Measures of confinement that this platform refused to a child so far; each is logged once."""

    def close(self) -> None:
        """Give up the forkserver. No task may be running."""
        self._starter.shutdown()

    def end_forkserver(self) -> None:
        """Kill the forkserver, so that nobody waits for the end of its imports; a child whose start waits fails."""
        self._ending = True
        pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def warm_up(self) -> None:
        """Start the forkserver; it imports in the background, and the first child waits for it."""
        await in_thread(forkserver.ensure_running, self._starter)

    async def run(
        self,
        task: str,
        arguments: Any,
        *,
        limits: Limits,
        work_dir: Path,
        answer: Answer,
        result: TypeAdapter[Result] = ANY_JSON,
    ) -> Result:
        """Run a task of child.py and give its result, as the type that it must have; nothing of the child is left then.

        The child is not believed: a result of another type, an error that is not its to tell, too many or too long
        messages are a crash.

        Raises TaskFailed with what the task said, or with TimedOut, OutOfMemory or ChildCrashed.
        Cancelling kills the child at once.
        """
        killed_before = _kernel_kills()
        async with self._child(task, arguments, limits, work_dir) as (process, reader, writer):
            try:
                async with asyncio.timeout(limits.timeout):
                    ending = await self._converse(reader, writer, answer)
            except TimeoutError:
                error = TimedOut(f"It ran longer than {limits.timeout:g} seconds.")
                raise TaskFailed(error.problem()) from None
            if ending is None:
                status = await _last_status(process)
                problem = _crash(status, work_dir / LOG, _kernel_kills() > killed_before)
                raise TaskFailed(problem, killed=status in (-signal.SIGKILL, FORKSERVER_GONE))
            process.kill()
        return await _believed(ending, result)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer
    ) -> Done | Failed | None:
        """Listen to a child until it has said its last word; None when it went without one."""
        with suppress(ConnectionError, ValueError):  # it hung up, or its line was longer than it may be
            for _ in range(MOST_MESSAGES):
                line = await reader.readline()
                message = await _understood(line) if line else None
                if message is None or isinstance(message, Done | Failed):
                    return message
                if isinstance(message, Unconfined):
                    self._note(message)
                    continue
                reply = await answer(message)
                if reply is not None:
                    writer.write(reply.model_dump_json().encode() + b"\n")
                    await writer.drain()
        return None

    def _note(self, message: Unconfined) -> None:
        for measure in set(message.measures) - self.unconfined:
            log.warning("child_not_confined", measure=measure)
        self.unconfined |= set(message.measures)

    @asynccontextmanager
    async def _child(
        self, task: str, arguments: Any, limits: Limits, work_dir: Path
    ) -> AsyncIterator[tuple[ChildProcess, asyncio.StreamReader, asyncio.StreamWriter]]:
        ours, theirs = socket.socketpair()
        log_path = str(work_dir / LOG)
        process = self._new_process(task, (task, arguments, theirs, limits, log_path))
        writer = None
        try:
            try:
                while not await self._starts(process):
                    process = self._new_process(task, (task, arguments, theirs, limits, log_path))
            finally:
                theirs.close()
            reader, writer = await asyncio.open_connection(sock=ours, limit=limits.message_bytes)
            yield process, reader, writer
        finally:
            process.kill()
            await process.gone()
            if writer is None:
                ours.close()
            else:
                writer.close()

    def _new_process(self, name: str, arguments: tuple[Any, ...]) -> ChildProcess:
        return ChildProcess(self._context, self._starter, child.main, arguments, name=name)

    async def _starts(self, process: ChildProcess) -> bool:
        """Start a child; False when the forkserver died over it, which the next start replaces."""
        try:
            await process.start()
        except (EOFError, ConnectionError) as error:
            if self._ending:
                raise
            log.warning("forkserver_lost", error=repr(error))
            await asyncio.sleep(RESTART_PAUSE)
            return False
        return True


async def _last_status(process: ChildProcess) -> int:
    """The exit status of a child that went silent: of its own accord where it ends soon, else killed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORD):
            return await process.status()
    process.kill()
    await process.gone()
    return SILENT


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


def _crash(status: int, log_path: Path, kernel_killed: bool) -> Problem:
    """Why a child went without a word. The end of what it printed goes to our log, not to the client."""
    said = _tail(log_path)
    log.error("child_crashed", status=status, said=said)
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    if "bad_alloc" in said or (status == -signal.SIGKILL and kernel_killed):
        return OutOfMemory(f"The conversion process was ended for its use of memory ({name}).").problem()
    return ChildCrashed(f"The conversion process ended with {name}.").problem()


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
