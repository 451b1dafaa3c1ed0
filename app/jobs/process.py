"""One child process of the supervisor: forked from the forkserver, killed with everything it started, waited for."""

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from typing import Any

from app.threads import in_thread


class ChildProcess:
    """A process that leads a group of its own. ``starter``: the one thread that may use multiprocessing."""

    def __init__(
        self, context: ForkServerContext, starter: Executor, target: Callable[..., None], args: Any, name: str
    ) -> None:
        self._starter = starter
        self._process = context.Process(target=target, args=args, name=name)
        self._ending: asyncio.Task[int] | None = None

    async def start(self) -> None:
        """Raises EOFError or OSError when the forkserver dies meanwhile; another one is then started with the next."""
        await in_thread(self._process.start, self._starter)

    def kill(self) -> None:
        """Kill it with its group, once; the kernel needs a while to take its memory back, ``gone`` waits for that."""
        pid = self._process.pid
        if pid is None or self._ending is not None:
            return
        self._ending = asyncio.create_task(self.status())
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            with suppress(ProcessLookupError):  # it may not have made its own group yet
                os.kill(pid, signal.SIGKILL)

    async def gone(self) -> None:
        """Wait for the end of what was killed, even when this task is cancelled meanwhile."""
        while self._ending is not None and not self._ending.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([self._ending])

    async def status(self) -> int:
        """The exit status once the process has ended: negative for a signal; 255 when the forkserver died too."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        fd = self._process.sentinel
        loop.add_reader(fd, lambda: None if ended.done() else ended.set_result(None))
        try:
            await ended
        finally:
            loop.remove_reader(fd)
        await in_thread(self._process.join, self._starter)
        assert self._process.exitcode is not None
        return self._process.exitcode
