"""Imported by each process of a service that a test started with this directory on PYTHONPATH: one process stops for
good at a step of storing a file, so that the test can kill everything just there.

STOP_AT names a file that holds "PROCESS STEP"; it is renamed to end in .reached when that step is reached.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

ORDER = Path(os.environ.get("STOP_AT", os.devnull))
write, flush, move = os.writev, os.fsync, os.rename


def reached(step: str) -> None:
    try:
        order = ORDER.read_text().split()
    except OSError:
        return
    if order and order[1] == step and order[0] in sys.argv[1:]:
        move(ORDER, ORDER.with_suffix(".reached"))
        while True:
            time.sleep(1)


def kind(fd: int) -> str:
    path = os.readlink(f"/proc/self/fd/{fd}")
    if "/objects/sha256/" in path:
        return "directory" if os.path.isdir(path) else "object"
    return "file" if "/objects/incoming/" in path or "/work/" in path else "other"


def stopping_write(fd: int, buffers: Any) -> int:
    written = write(fd, buffers)
    if kind(fd) == "file":
        reached("write")
    return written


def stopping_flush(fd: int) -> None:
    reached(f"flush-{kind(fd)}")
    flush(fd)


def stopping_move(source: Any, target: Any, **options: Any) -> None:
    if "/objects/sha256/" in str(target):
        reached("move")
    move(source, target, **options)


os.writev, os.fsync, os.rename = stopping_write, stopping_flush, stopping_move  # type: ignore[assignment]
