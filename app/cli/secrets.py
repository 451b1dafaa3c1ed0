"""Settings that `recast serve` tells its parts over a pipe, so that no environment holds them."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

VARIABLE = "RECAST_SECRETS_FD"
LONGEST = 32 << 10
"""Bytes of all of them: they must fit into a pipe that nobody reads yet."""


@contextmanager
def told_secrets(secrets: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]]]:
    """A descriptor to hand to a process that is started in the block, and the variable that names it there."""
    reader, writer = os.pipe()
    try:
        os.write(writer, json.dumps(dict(secrets)).encode())
        os.close(writer)
        yield reader, {VARIABLE: str(reader)}
    finally:
        os.close(reader)


def inherited_secrets() -> dict[str, str]:
    """What this process was told when it was started, once; nothing where it was started by itself."""
    number = os.environ.pop(VARIABLE, None)
    if number is None:
        return {}
    with open(int(number), "rb") as pipe:
        told: dict[str, str] = json.loads(pipe.read(LONGEST))
    return told
