"""A worker as a process of its own, with the tasks of tasks.py: settings from the environment, SIGTERM drains."""

import asyncio
import os
import signal
import sys

from app.jobs.running import Tasks
from app.jobs.worker import run_worker
from app.settings import Settings
from app.telemetry import configure_traces

MODULE = os.environ.get("RECAST_TEST_TASKS", "tests.jobs.tasks")
TASKS = Tasks(
    conversion=f"{MODULE}:convert", inspection=f"{MODULE}:inspect", catalog=f"{MODULE}:catalog", preload=(MODULE,)
)


async def main(database_url: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_worker(Settings(), database_url, stop, TASKS, os.environ.get("RECAST_SUPERVISOR"))


if __name__ == "__main__":
    configure_traces("worker", "test")
    asyncio.run(main(sys.argv[1]))
