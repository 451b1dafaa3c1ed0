"""`recast serve` as scripts/chaos strikes it: its processes are killed, its store, database and disk are taken away."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from app.database.embedded import EmbeddedPostgres

PROJECT = Path(__file__).resolve().parent.parent
PLUGINS = PROJECT / "scripts" / "plugins"
MEMORY = 3 << 30
"""Bytes that one conversion may have: so that those that take all that they get are ended soon."""
RECAST = (sys.executable, "-P", "-m", "app.cli")


@dataclass
class Process:
    """A process that is started again and again, in a group of its own, printing to one file."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    running: psutil.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.running = psutil.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                start_new_session=True,
            )

    def stop(self, seconds: float = 90) -> int:
        """SIGTERM; gives the exit status."""
        assert self.running is not None
        with suppress(psutil.NoSuchProcess):
            self.running.send_signal(signal.SIGTERM)
        return int(self.running.wait(seconds))

    def kill(self) -> None:
        if self.running is not None:
            with suppress(psutil.NoSuchProcess):
                self.running.kill()
            self.running.wait(20)

    @property
    def lives(self) -> bool:
        return self.running is not None and self.running.poll() is None


@dataclass(frozen=True)
class Strike:
    """Something that is killed or taken away when ``do`` is called."""

    kind: str
    do: Callable[[], object]
    workers: str | None = None
    """SQL pattern of the names of the workers that it hits as a whole."""


def kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def child_of(worker: psutil.Process, name: str, chosen: random.Random) -> psutil.Process | None:
    """A worker's forkserver, or the process of one of its conversions; None while there is none."""
    with suppress(psutil.Error, StopIteration):
        forkserver = next(p for p in worker.children() if "forkserver" in " ".join(p.cmdline()))
        if name == "forkserver":
            return forkserver
        children = [p for p in forkserver.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
        return chosen.choice(children) if children else None
    return None


@dataclass
class Serving:
    """`recast serve` on one data directory."""

    directory: Path
    children: int = 2
    kinds: dict[str, int] = field(
        default_factory=lambda: {
            "child": 4,
            "worker": 4,
            "forkserver": 2,
            "api": 2,
            "postmaster": 2,
            "serve": 2,
            "everything": 1,
            "store": 1,
        }
    )
    """What is struck how often, in parts."""

    def __post_init__(self) -> None:
        self.data_dir = self.directory / "data"
        self.objects = self.data_dir / "objects"
        port = free_port()
        self.urls = [f"http://127.0.0.1:{port}"]
        command = (*RECAST, "serve", "--port", str(port), "--data-dir", str(self.data_dir))
        environment = {"RECAST_PLUGINS_DIR": str(PLUGINS), "RECAST_CHILDREN": str(self.children)}
        environment |= {"RECAST_CHILD_MEMORY_LIMIT": str(MEMORY), "RECAST_MIN_FREE_BYTES": str(64 << 20)}
        environment["XDG_STATE_HOME"] = str(self.directory / "state")
        self.serve = Process(command, environment, self.directory / "service.log")

    @property
    def database_url(self) -> str:
        return EmbeddedPostgres(self.data_dir).url

    def start(self) -> None:
        self.serve.start()

    def stop(self) -> int:
        return self.serve.stop()

    def end(self) -> None:
        """Leave nothing running."""
        self.kill_everything()

    def part(self, name: str, chosen: random.Random) -> psutil.Process | None:
        """The process of that name that runs now."""
        with suppress(psutil.Error, OSError, ValueError, KeyError):
            if name == "postmaster":
                pid_file = self.data_dir / "postgres" / "data" / "postmaster.pid"
                return psutil.Process(int(pid_file.read_text().split()[0]))
            assert self.serve.running is not None
            children = self.serve.running.children()
            parts = {word: p for p in children for word in p.cmdline() if word in ("api", "worker")}
            return parts[name] if name in parts else child_of(parts["worker"], name, chosen)
        return None

    def aim(self, kind: str, chosen: random.Random) -> Strike | None:
        """A strike at a part; None where there is no such part now."""
        if kind == "store":
            return Strike(kind, partial(self.away, kind, 5.0))
        if kind in ("serve", "everything"):
            return Strike(kind, partial(self._kill_and_start, kind == "everything"), "%")
        part = self.part(kind, chosen)
        return part and Strike(kind, partial(kill, part), "%" if kind == "worker" else None)

    def _kill_and_start(self, everything: bool) -> None:
        if everything:
            self.kill_everything()
        else:
            self.serve.kill()
        self.start()

    def kill_everything(self) -> None:
        """kill -9 of every process that was started for this service, the database included."""
        family = self.serve.running.children(recursive=True) if self.serve.lives and self.serve.running else []
        for process in psutil.process_iter(["cmdline"]):
            if str(self.data_dir) in " ".join(process.info["cmdline"] or ()):
                with suppress(psutil.NoSuchProcess):
                    family += [process, *process.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.serve.kill()
        psutil.wait_procs(family, timeout=20)

    def away(self, part: str, seconds: float) -> None:
        """Take a part away for so long: the store, the database, or the room on the disk."""
        {"store": self._directory_away, "database": self._directory_away, "disk": self._disk_full}[part](part, seconds)

    def _directory_away(self, part: str, seconds: float) -> None:
        """As when its disk is not mounted."""
        place = self.objects if part == "store" else self.data_dir / "postgres"
        place.rename(self.data_dir / "away")
        if part == "database" and (server := self._postmaster(self.data_dir / "away")):
            server.kill()
        time.sleep(seconds)
        (self.data_dir / "away").rename(place)

    def _postmaster(self, postgres: Path) -> psutil.Process | None:
        with suppress(psutil.Error, OSError, ValueError):
            return psutil.Process(int((postgres / "data" / "postmaster.pid").read_text().split()[0]))
        return None

    def _disk_full(self, _: str, seconds: float) -> None:
        filling = self.data_dir / "filling"
        with suppress(OSError), filling.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        time.sleep(seconds)
        filling.unlink()


def on_small_disk(directory: Path) -> None:
    """Mount a file system in memory there, small enough to be filled. Raises CalledProcessError where it may not be."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g,mode=755", "tmpfs", directory], check=True)


def leave_small_disk(directory: Path) -> None:
    subprocess.run(["umount", directory], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
