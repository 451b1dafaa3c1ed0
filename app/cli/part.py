"""A process of `recast serve`: started, told its secrets, watched, and stopped."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from app.cli.secrets import SecretsPipe
from app.processes import die_with_parent

log = structlog.get_logger("recast.serve")


@dataclass(frozen=True)
class Part:
    """A process that must run."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    pass_fds: tuple[int, ...] = ()


class RunningPart:
    """A part's process. It dies with this one, and reads settings that are secret from a pipe: an environment can be
    read for as long as its process lives."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.since = time.monotonic()
        self._secrets = SecretsPipe()
        self._process = subprocess.Popen(
            part.command,
            env={**part.environment, **self._secrets.variables},
            pass_fds=(*part.pass_fds, self._secrets.reader),
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then stops the parts in order
            preexec_fn=die_with_parent,  # noqa: PLW1509 - it asks the kernel alone
        )
        self._secrets.started()

    @property
    def status(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def tell(self, secrets: Mapping[str, str]) -> None:
        self._secrets.tell(secrets)

    async def ended(self) -> int:
        if self._process.poll() is None:
            ended = asyncio.Event()
            process = os.pidfd_open(self._process.pid)
            asyncio.get_running_loop().add_reader(process, ended.set)
            try:
                await ended.wait()
            finally:
                asyncio.get_running_loop().remove_reader(process)
                os.close(process)
        return self._process.wait()

    async def stop(self, grace: float) -> bool:
        """Whether it ended as it should, within so many seconds; it is killed after them."""
        self._process.terminate()
        try:
            async with asyncio.timeout(grace):
                status = await self.ended()
        except TimeoutError:
            log.error("part_killed", part=self.part.name, after=grace)
            self.kill()
            return False
        return status in (0, -signal.SIGTERM)  # the latter: it had not yet started to listen to signals

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
