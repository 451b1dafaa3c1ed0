"""`recast worker`: the process that takes jobs from the queue."""

import asyncio
import os
import signal

from app.cli.processes import SUPERVISOR, check_settings, migrated_database
from app.domain.versions import service_version
from app.jobs.worker import run_worker as work
from app.logs import configure_logging
from app.processes import close_to_others
from app.settings import Settings
from app.telemetry import configure_traces


def run_worker(settings: Settings) -> None:
    """Take jobs until SIGTERM or SIGINT, then drain."""
    close_to_others()
    configure_logging(settings.log_format, settings.log_level)
    check_settings(settings)
    configure_traces("worker", service_version())

    async def until_told(url: str) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await work(settings, url, stop, supervisor=os.environ.get(SUPERVISOR))

    with migrated_database(settings, by_others=True) as url:
        asyncio.run(until_told(url))
