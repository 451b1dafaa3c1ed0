"""A worker as a process of its own, with the tasks of tasks.py: settings from the environment, SIGTERM drains."""

import asyncio
import os
import signal
import sys

from app.jobs.running import Tasks
from app.jobs.worker import run_worker
from app.settings import Settings

TASKS = Tasks(
    conversion="tests.jobs.tasks:convert",
    inspection="tests.jobs.tasks:inspect",
    catalog="tests.jobs.tasks:catalog",
    preload=("tests.jobs.tasks",),
)


async def main(database_url: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_worker(Settings(), database_url, stop, TASKS, os.environ.get("RECAST_SUPERVISOR"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
