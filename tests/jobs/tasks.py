"""Tasks for child processes of tests: what well- and ill-behaved conversions do, without torch."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from app.domain.conversion import Stage
from app.domain.errors import KeyMismatch
from app.jobs.child import SupervisorLine


def echo(arguments: Any, _: SupervisorLine) -> Any:
    return arguments


def report_progress(_: Any, supervisor: SupervisorLine) -> Any:
    supervisor.progress(Stage.load, 0.25)
    supervisor.progress(Stage.export, 0.5)
    return os.getpid()


def refuse(_: Any, __: SupervisorLine) -> Any:
    raise KeyMismatch("Three keys are missing.", missing_keys=["a", "b", "c"])


def stumble(_: Any, __: SupervisorLine) -> Any:
    return {}["absent"]


def die(arguments: Any, _: SupervisorLine) -> Any:
    os.kill(os.getpid(), getattr(signal, arguments))


def leave(_: Any, __: SupervisorLine) -> Any:
    sys.exit(3)


def sleep(arguments: Any, supervisor: SupervisorLine) -> Any:
    """Write the pids of this process and of one it started to a file, then sleep for ever."""
    started = subprocess.Popen(["sleep", "1000"])
    Path(arguments).write_text(f"{os.getpid()} {started.pid}")
    supervisor.progress(Stage.export, 0.5)
    time.sleep(1000)


def eat_memory(arguments: Any, _: SupervisorLine) -> Any:
    return len(bytearray(arguments))


def reach_network(arguments: Any, _: SupervisorLine) -> Any:
    with socket.create_connection(("127.0.0.1", arguments), timeout=5):
        return "connected"


def read_environment(_: Any, __: SupervisorLine) -> Any:
    return sorted(name for name in os.environ if name.startswith("RECAST_"))


def write_large_file(arguments: Any, _: SupervisorLine) -> Any:
    Path(arguments).write_bytes(bytes(2 << 20))


def say_nonsense(_: Any, supervisor: SupervisorLine) -> Any:
    supervisor._line.sendall(b"\x00\xff not json\n")
    time.sleep(1000)


def parent(_: Any, __: SupervisorLine) -> Any:
    return os.getppid()
