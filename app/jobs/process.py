"""The worker's side of the forkserver: it starts it, has it fork children, and hears of their end."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from app.jobs.confinement import Limits, Requirement

LONGEST_EVENT = 64 << 10
PASSED_ON = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "PYTHONSAFEPATH", "PYTHONHASHSEED", "PYTHONDEVMODE"})
PASSED_ON_PREFIXES = ("LC_", "LD_LIBRARY_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_", "HF_HUB_OFFLINE")
"""What of the environment a process that runs models may see: how to compute, and in which language."""


@dataclass(frozen=True)
class Places:
    """Where a child may read and write. ``temporary`` is its /tmp; ``root`` is empty, for its root to be mounted on."""

    readable: tuple[Path, ...]
    writable: tuple[Path, ...]
    temporary: Path
    root: Path


@dataclass(frozen=True)
class Ended:
    """How a child ended, of which no process is left. ``status``: negative for a signal, None where nobody knows."""

    status: int | None
    excess: str | None = None
    """What it was ended for having too much of: memory, disk, processes, descriptors, mappings or processor."""


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the forkserver is started with: nothing but what is listed, whatever else is added to the service's."""
    passed = {
        name: value for name, value in environment.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    return {
        **passed,
        "HOME": os.devnull,  # no library is to leave anything there
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


class ChildProcess:
    """A child, from the order to fork it on."""

    def __init__(self, forkserver: "Forkserver", id: int, line: socket.socket) -> None:
        self._forkserver = forkserver
        self.id = id
        self.line = line
        """Our end of the line to it, for its supervisor to use and to close."""
        self.pid: int | None = None
        """Its number here; None where the forkserver is in a pid namespace of its own, and all of it dies with that."""
        self.started: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether it was made, once that is known."""
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def kill(self) -> None:
        """Kill all processes of it; ``gone`` waits until the kernel has taken their memory back."""
        if not self.ended.done():
            self._forkserver.order({"do": "kill", "id": self.id})

    def bound_processor(self, seconds: float | None) -> None:
        """From now on all its processes together may take so much more processor time; None: any."""
        if not self.ended.done():
            self._forkserver.order({"do": "bound", "id": self.id, "seconds": seconds})

    async def gone(self) -> None:
        """Wait until no process of it is left, even when this task is cancelled meanwhile."""
        while not self.ended.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([self.ended])


class Forkserver:
    """``preload``: modules that it imports before any fork. ``hidden``: directories that no child sees."""

    def __init__(
        self,
        preload: tuple[str, ...],
        hidden: tuple[Path, ...],
        requirement: Requirement,
        died_idle: Callable[[], None] = lambda: None,
    ) -> None:
        """``died_idle``: called when it turns out to have died without a child, whose end would tell of it."""
        self._died_idle = died_idle
        self._preload = preload
        self._hidden = hidden
        self._requirement = requirement
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._children: dict[int, ChildProcess] = {}
        self._ids = count()

    def ensure_running(self) -> None:
        """Start it where it does not run; it imports in the background, and the first child waits for it."""
        if self._process is None or self._control is None or self._process.poll() is not None:
            self._bury()
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "app.jobs.forkserver", str(theirs.fileno())],
                    env=child_environment(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])},
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd="/",
                )
            self._control.setblocking(False)
            self.order(
                {
                    "sys_path": [path or os.getcwd() for path in sys.path],
                    "preload": self._preload,
                    "hidden": [str(path) for path in self._hidden],
                    "worker": os.getpid(),
                }
            )
        self._listen()

    def fork(self, limits: Limits, places: Places, log_path: Path) -> ChildProcess:
        """Order a child. What it prints is added to a file, which it cannot reach by name."""
        self.ensure_running()
        ours, theirs = socket.socketpair()
        child = ChildProcess(self, next(self._ids), ours)
        self._children[child.id] = child
        order = {
            "do": "start",
            "id": child.id,
            "limits": asdict(limits),
            "readable": [str(path) for path in places.readable],
            "writable": [str(path) for path in places.writable],
            "temporary": str(places.temporary),
            "root": str(places.root),
            "log": str(log_path),
            "requirement": self._requirement,
        }
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with theirs:
            self.order(order, theirs.fileno(), log)
        os.close(log)
        return child

    def order(self, order: Mapping[str, Any], *fds: int) -> None:
        """Send an order; one that can no longer be heard is answered by the forkserver's end."""
        assert self._control is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [json.dumps(order).encode()], fds)

    def kill(self) -> None:
        """End it at once, with all children, whatever it is doing."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End it. No child may be running."""
        self._hang_up()
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop and self._control is not None:
            self._loop = loop
            loop.add_reader(self._control, self._hear)

    def _hear(self) -> None:
        assert self._control is not None
        try:
            message = self._control.recv(LONGEST_EVENT)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message = b""
        if not message:
            self._bury()
            return
        event = json.loads(message)
        child = self._children.get(event["id"])
        if child is None:
            return
        if event["event"] == "started":
            child.pid = event["pid"]
            if not child.started.done():
                child.started.set_result(True)
        else:
            del self._children[event["id"]]
            _end(child, Ended(event["status"], event["excess"]))

    def _bury(self) -> None:
        """Let go of one that died; nothing, where none was held."""
        if self._control is None:
            return
        idle = not self._children
        self._hang_up()
        if idle:
            self._died_idle()

    def _hang_up(self) -> None:
        """Let go of a forkserver. Its children die with it; what they started is killed with their groups."""
        if self._control is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._control)
        self._control.close()
        self._control = self._loop = None
        for child in self._children.values():
            with suppress(ProcessLookupError, PermissionError):
                if child.pid is not None:
                    os.killpg(child.pid, signal.SIGKILL)
            _end(child, Ended(None))
        self._children.clear()


def _end(child: ChildProcess, ended: Ended) -> None:
    if not child.started.done():
        child.started.set_result(False)
    if not child.ended.done():
        child.ended.set_result(ended)
