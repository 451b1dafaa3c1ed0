"""`recast serve`: database, api and worker under one supervisor."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

import httpx
import structlog
import typer

from app.cli.failure import FAILED, USAGE
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
from app.cli.secrets import told_secrets
from app.logs import configure_logging
from app.processes import close_to_others, die_with_parent
from app.settings import Settings
from app.tasks import first

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
"""Seconds before a part that ended is started again, doubled from the first each time it ends soon."""
HEALTHY_AFTER = 10.0
"""Seconds after which a part that ran counts as healthy: its next crash is restarted at once again."""
POLL = 0.2
EXTRA_GRACE = 15.0
"""Seconds beyond the drain time before what does not stop is killed."""

log = structlog.get_logger("recast.serve")


@dataclass(frozen=True)
class Part:
    """A process that must run."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    """Settings that it is told over a pipe: an environment can be read for as long as its process lives."""
    pass_fds: tuple[int, ...] = ()


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; 0 when everything stopped as it should."""
    close_to_others()
    configure_logging(settings.log_format, settings.log_level)
    check_settings(settings)
    with only_one(settings.data_dir), listen(settings) as listener, migrated_database(settings) as url:
        refuse_to_serve_nobody(settings, url)
        return asyncio.run(_supervise(settings, url, listener))


async def _supervise(settings: Settings, database_url: str, listener: socket.socket) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    host, port = listener.getsockname()[:2]
    grace = max(settings.drain_timeout, GRACE) + EXTRA_GRACE
    parts = _parts(settings, database_url, listener.fileno())
    running = [asyncio.create_task(_keep_running(part, stop, grace)) for part in parts]
    announcing = asyncio.create_task(_announce(f"http://{f'[{host}]' if ':' in host else host}:{port}"))
    statuses = await asyncio.gather(*running)
    announcing.cancel()
    return max(statuses)


def _parts(settings: Settings, database_url: str, listener: int) -> tuple[Part, Part]:
    secrets = {"database_url": database_url}
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
        Part("api", (*recast, "api", "--fd", str(listener)), environment, secrets, (listener,)),
        Part("worker", (*recast, "worker"), environment, secrets),
    )


async def _keep_running(part: Part, stop: asyncio.Event, grace: float) -> int:
    """Start ``part``, and start it again whenever it ends, until ``stop``; gives what `recast serve` is to end with.

    However often it ends: the other parts are of use without it, and what ails it (a database that is away, a full
    disk) may pass. Wrong settings do not: a part that ends for them, and has said so, ends everything.
    """
    pause = FIRST_PAUSE
    while not stop.is_set():
        started = time.monotonic()
        with told_secrets(part.secrets) as (fd, variables):
            process = await asyncio.create_subprocess_exec(
                *part.command,
                env={**part.environment, **variables},
                pass_fds=(*part.pass_fds, fd),
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then stops the parts in order
                preexec_fn=die_with_parent,
            )
        await first(process.wait(), stop.wait())
        if process.returncode is None:
            return 0 if await _stopped(part, process, grace) else FAILED
        if process.returncode == USAGE:
            log.error("part_cannot_run", part=part.name)
            stop.set()
            return USAGE
        if time.monotonic() - started > HEALTHY_AFTER:
            pause = FIRST_PAUSE
        log.error("part_ended", part=part.name, status=process.returncode, restart_in=pause)
        await first(asyncio.sleep(pause), stop.wait())
        pause = min(2 * pause, LONGEST_PAUSE)
    return 0


async def _stopped(part: Part, process: asyncio.subprocess.Process, grace: float) -> bool:
    process.terminate()
    try:
        async with asyncio.timeout(grace):
            status = await process.wait()
    except TimeoutError:
        log.error("part_killed", part=part.name, after=grace)
        process.kill()
        await process.wait()
        return False
    return status in (0, -signal.SIGTERM)  # the latter: it had not yet started to listen to signals


async def _announce(url: str) -> None:
    """Say on standard output when the api answers, and when conversions can run."""
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        await _until_ok(client, "/healthz")
        typer.echo(f"Recast listens on {url}")
        await _until_ok(client, "/readyz")
        typer.echo(f"Recast is ready: {url}/docs")


async def _until_ok(client: httpx.AsyncClient, path: str) -> None:
    while True:
        try:
            if (await client.get(path)).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(POLL)
