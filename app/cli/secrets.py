"""Settings that `recast serve` tells its parts over a pipe, so that no environment holds them."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress

VARIABLE = "RECAST_SECRETS_FD"
LONGEST = 32 << 10
"""Bytes of all of them: they must fit into a pipe that nobody reads yet."""


class SecretsPipe:
    """How a process learns them that may be started before they are known; it waits where it asks too early."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        self.variables = {VARIABLE: str(self.reader)}
        """What the process is to have in its environment, beside the inherited ``reader``."""

    def started(self) -> None:
        """The process has its end."""
        os.close(self.reader)

    def tell(self, secrets: Mapping[str, str]) -> None:
        """Once; to nobody where the process has ended."""
        with suppress(BrokenPipeError):
            os.write(self._writer, json.dumps(dict(secrets)).encode())
        os.close(self._writer)


def inherited_secrets() -> dict[str, str]:
    """What this process is told by the one that started it, once; nothing where it was started by itself."""
    number = os.environ.pop(VARIABLE, None)
    if number is None:
        return {}
    with open(int(number), "rb") as pipe:
        told: dict[str, str] = json.loads(pipe.read(LONGEST))
    return told
