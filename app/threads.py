"""Work in threads that is never left running behind its caller's back."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(work: Callable[[], Result], executor: Executor | None = None) -> Result:
    """Run ``work`` in a thread and wait for its end even when this task is cancelled meanwhile.

    So what the work uses (a file descriptor, a directory) may be given up right after.
    """
    task = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(executor, work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise
