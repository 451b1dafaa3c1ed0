"""`recast serve`: database, api and worker under one supervisor."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from http import HTTPStatus
from uuid import uuid4

import structlog
import typer

from app.cli.failure import FAILED, USAGE
from app.cli.part import Part, RunningPart
from app.cli.processes import (
    GRACE,
    MIGRATED,
    SUPERVISOR,
    check_settings,
    listen,
    migrated_database,
    only_one,
    refuse_to_serve_nobody,
)
from app.logs import configure_logging
from app.processes import close_to_others
from app.settings import Settings
from app.tasks import first

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
"""Seconds before a part that ended is started again, doubled from the first each time it ends soon."""
HEALTHY_AFTER = 10.0
"""Seconds after which a part that ran counts as healthy: its next crash is restarted at once again."""
POLL = 0.05
ANSWER_SECONDS = 10
EXTRA_GRACE = 15.0
"""Seconds beyond the drain time before what does not stop is killed."""

log = structlog.get_logger("recast.serve")


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; 0 when everything stopped as it should."""
    close_to_others()
    configure_logging(settings.log_format, settings.log_level)
    with only_one(settings.data_dir), listen(settings) as listener:
        running = [RunningPart(part) for part in _parts(settings, listener.fileno())]
        # They load their libraries while the database starts.
        try:
            check_settings(settings)
            with migrated_database(settings) as url:
                refuse_to_serve_nobody(settings, url)
                return asyncio.run(_supervise(settings, running, url, listener))
        finally:
            for one in running:
                one.kill()


async def _supervise(
    settings: Settings, parts: Sequence[RunningPart], database_url: str, listener: socket.socket
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    grace = max(settings.drain_timeout, GRACE) + EXTRA_GRACE
    keep = partial(keep_running, stop=stop, grace=grace, secrets={"database_url": database_url})
    running = [asyncio.create_task(keep(part)) for part in parts]
    announcing = asyncio.create_task(_announce(*listener.getsockname()[:2]))
    statuses = await asyncio.gather(*running)
    announcing.cancel()
    return max(statuses)


def _parts(settings: Settings, listener: int) -> tuple[Part, Part]:
    environment = {
        **{name: value for name, value in os.environ.items() if name != "RECAST_DATABASE_URL"},
        SUPERVISOR: uuid4().hex,
        MIGRATED: "1",
        "RECAST_DATA_DIR": str(settings.data_dir.absolute()),
        "RECAST_HOST": settings.host,
        "RECAST_ALLOW_UNAUTHENTICATED": str(settings.allow_unauthenticated).lower(),
    }
    recast = (sys.executable, "-P", "-m", "app.cli")  # -P: what lies in the working directory is not ours
    return (
        Part("api", (*recast, "api", "--fd", str(listener)), environment, (listener,)),
        Part("worker", (*recast, "worker"), environment),
    )


async def keep_running(running: RunningPart, *, stop: asyncio.Event, grace: float, secrets: Mapping[str, str]) -> int:
    """Tell a part its secrets, and start it again whenever it ends, until ``stop``; gives what `recast serve` is to end
    with.

    However often it ends: the other parts are of use without it, and what ails it (a database that is away, a full
    disk) may pass. Wrong settings do not: a part that ends for them, and has said so, ends everything.
    """
    part, pause = running.part, FIRST_PAUSE
    while True:
        running.tell(secrets)
        await first(running.ended(), stop.wait())
        status = running.status
        if status is None:
            return 0 if await running.stop(grace) else FAILED
        if status == USAGE:
            log.error("part_cannot_run", part=part.name)
            stop.set()
            return USAGE
        if time.monotonic() - running.since > HEALTHY_AFTER:
            pause = FIRST_PAUSE
        log.error("part_ended", part=part.name, status=status, restart_in=pause)
        await first(asyncio.sleep(pause), stop.wait())
        if stop.is_set():
            return 0
        pause = min(2 * pause, LONGEST_PAUSE)
        running = RunningPart(part)


async def _announce(host: str, port: int) -> None:
    """Say on standard output when the api answers, and when conversions can run."""
    address = f"{f'[{host}]' if ':' in host else host}:{port}"
    await _until_ok(host, port, "/healthz")
    typer.echo(f"Recast listens on http://{address}")
    await _until_ok(host, port, "/readyz")
    typer.echo(f"Recast is ready: http://{address}/docs")


async def _until_ok(host: str, port: int, path: str) -> None:
    """Asked under a name that is answered whatever RECAST_ALLOWED_HOSTS says."""
    while await _status(host, port, f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n") != HTTPStatus.OK:
        await asyncio.sleep(POLL)


async def _status(host: str, port: int, request: str) -> int | None:
    """What the api answers; None where it does not. No client's library has to be loaded for it."""
    with suppress(OSError, TimeoutError, ValueError, IndexError):
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            with closing(writer):
                writer.write(request.encode())
                return int((await reader.readline()).split()[1])
    return None
