"""A fleet on one machine: PostgreSQL, an S3-speaking store (nanio), apis and workers.

Where it may be had (root, iproute2), every api and worker has a network namespace of its own behind one bridge, so that
a machine can vanish: what is sent to it and by it is lost, and nobody is told. Else all have addresses of loopback.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import psutil
import psycopg

from app.database.embedded import SUPERUSER, EmbeddedPostgres
from scripts.serving import MEMORY, PLUGINS, RECAST, Process, Strike, child_of, kill

BUCKET = "recast"
KEY, SECRET = "fleet", "secret-of-the-fleet"
WORKERS, WORKERS_SECRET = "fleet_workers", "secret-of-the-workers"
"""The role that workers connect as."""
ROLE_SECONDS = 60
VANISHED = 30.0
"""Seconds for which a machine vanishes: longer than a worker may be silent."""
RESTART_AFTER = 1.0
"""Seconds after which a machine whose process ended starts it again, as an orchestrator would."""


_NUMBERS = itertools.count()
"""Of the networks of one process, which may stand beside each other."""


class Network:
    """A bridge, and behind it one namespace for each machine."""

    def __init__(self) -> None:
        number = next(_NUMBERS)
        self.id = f"rc{os.getpid()}x{number}"
        place = os.getpid() + 61 * number
        self.net = f"10.{100 + place // 200 % 100}.{place % 200}"
        self.host = f"{self.net}.1"
        self._machines: list[str] = []
        try:
            _ip("link", "add", self.id, "type", "bridge")
            _ip("addr", "add", f"{self.host}/24", "dev", self.id)
            _ip("link", "set", self.id, "up")
            self.has_namespaces = True
        except (OSError, subprocess.CalledProcessError):
            self.has_namespaces = False
            self.net = f"127.{1 + os.getpid() // 250 % 250}.{os.getpid() % 250}"
            self.host = f"{self.net}.1"

    def add(self, name: str) -> tuple[str, tuple[str, ...]]:
        """Address of a new machine, and what its commands begin with."""
        self._machines.append(name)
        address = f"{self.net}.{10 + len(self._machines)}"
        if not self.has_namespaces:
            return address, ()
        space, outer, inner = self._names(name)
        _ip("netns", "add", space)
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", space)
        _ip("link", "set", outer, "master", self.id, "up")
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", inner)
        for device in ("lo", inner):
            _ip("-n", space, "link", "set", device, "up")
        return address, ("ip", "netns", "exec", space)

    def cut(self, name: str) -> None:
        _ip("link", "set", self._names(name)[1], "nomaster")

    def join(self, name: str) -> None:
        _ip("link", "set", self._names(name)[1], "master", self.id)

    def remove(self) -> None:
        if not self.has_namespaces:
            return
        for name in self._machines:
            _ip("netns", "del", self._names(name)[0])
        _ip("link", "del", self.id)

    def _names(self, name: str) -> tuple[str, str, str]:
        number = self._machines.index(name)
        return f"{self.id}-{name}", f"{self.id}o{number}", f"{self.id}i{number}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Fleet:
    """PostgreSQL and the store on the host, ``apis`` and ``workers`` on machines of their own."""

    directory: Path
    apis: int = 2
    workers: int = 4
    settings: dict[str, str] = field(default_factory=dict)
    settings_of: dict[str, dict[str, str]] = field(default_factory=dict)
    """Settings of single machines: ``api-0``, ``worker-3``."""
    restarting: bool = True
    """Machines start their process again when it ends."""
    kinds: dict[str, int] = field(
        default_factory=lambda: dict(child=4, worker=4, forkserver=2, api=2, database=2, vanish=2, store=1)
    )
    """What is struck how often, in parts."""

    def __post_init__(self) -> None:
        self.network = Network()
        self.objects = self.directory / "store" / BUCKET
        self.objects.mkdir(parents=True)
        options = {"listen_addresses": self.network.host}
        self.database = EmbeddedPostgres(self.directory / "database", options)
        store = (
            sys.executable,
            "-m",
            "nanio",
            "serve",
            "--host",
            self.network.host,
            "--port",
            "9000",
            "--no-access-log",
        )
        keys = {"NANIO_ACCESS_KEY": KEY, "NANIO_SECRET_KEY": SECRET, "NANIO_DATA_DIR": str(self.directory / "store")}
        self.store = Process(store, keys, self.directory / "store.log")
        self.machines: dict[str, Process] = {}
        self.urls: list[str] = []
        self._stopped = threading.Event()
        self._held: set[str] = set()
        """Machines that are not started again for now."""
        self._keeper = threading.Thread(target=self._keep_running, name="fleet")

    @property
    def database_url(self) -> str:
        """Over TCP, as the owner of the tables."""
        parts = urlsplit(self.database.url)
        return urlunsplit((parts.scheme, f"{parts.netloc}{self.network.host}:5432", parts.path, "", ""))

    @property
    def workers_url(self) -> str:
        return f"postgresql://{WORKERS}:{WORKERS_SECRET}@{self.network.host}:5432/postgres"

    def start(self) -> None:
        self.database.start()
        with (self.directory / "database" / "postgres" / "data" / "pg_hba.conf").open("a") as hba:
            hba.write(f"host all all {self.network.net}.0/24 scram-sha-256\nlocal all {SUPERUSER} trust\n")
        self._postmaster().send_signal(signal.SIGHUP)
        self._make_role()
        self.store.start()
        for part, number in (("api", self.apis), ("worker", self.workers)):
            for name in [f"{part}-{n}" for n in range(number)]:
                self.machines[name] = self._machine(part, name)
                self.machines[name].start()
        self._keeper.start()

    def _make_role(self) -> None:
        """As soon as the server has read who may log in."""
        parts = urlsplit(self.database.url)
        url = urlunsplit((parts.scheme, f"{SUPERUSER}@", parts.path, parts.query, ""))
        deadline = time.monotonic() + ROLE_SECONDS
        while True:
            try:
                with psycopg.connect(url) as connection:
                    connection.execute(f"create role {WORKERS} login password '{WORKERS_SECRET}'")
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _machine(self, part: str, name: str) -> Process:
        address, prefix = self.network.add(name)
        known = {"RECAST_DATABASE_URL": self.database_url, "RECAST_WORKER_ROLE": WORKERS}
        environment = {
            **(known if part == "api" else {"RECAST_DATABASE_URL": self.workers_url}),
            "RECAST_STORE_URL": f"s3://{BUCKET}",
            "RECAST_DATA_DIR": str(self.directory / name),
            "RECAST_PLUGINS_DIR": str(PLUGINS),
            "RECAST_CHILD_MEMORY_LIMIT": str(MEMORY),
            "RECAST_HOST": address,
            "RECAST_PORT": "8000",
            "RECAST_ALLOW_UNAUTHENTICATED": "true",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": f"http://{self.network.host}:9000",
            "AWS_ALLOW_HTTP": "true",
            **self.settings,
            **self.settings_of.get(name, {}),
        }
        if part == "api":
            self.urls.append(f"http://{address}:8000")
        return Process((*prefix, *RECAST, part), environment, self.directory / f"{name}.log")

    def until_ready(self, seconds: float) -> None:
        """Until every api is ready and every worker gives signs of life. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        for url in self.urls:
            while True:
                with suppress(httpx.HTTPError):
                    answer = httpx.get(f"{url}/readyz", timeout=10)
                    if answer.status_code == 200 and answer.json()["workers"] >= self.workers:
                        break
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{url} is not ready; see the logs in {self.directory}")
                time.sleep(0.5)

    def stop(self) -> int:
        """SIGTERM for every machine; gives the largest exit status."""
        self._cease()
        for machine in self.machines.values():
            if machine.lives and machine.running:
                machine.running.send_signal(signal.SIGTERM)
        statuses = [machine.stop() for machine in self.machines.values()]
        return max(
            (abs(status) for status in statuses if status != -signal.SIGTERM), default=0
        )  # it did not yet listen to signals

    def end(self) -> None:
        """Leave nothing running."""
        self._cease()
        for process in (*self.machines.values(), self.store):
            process.kill()
        self.database.close()
        self.network.remove()

    def _cease(self) -> None:
        self._stopped.set()
        if self._keeper.is_alive():
            self._keeper.join()

    def _keep_running(self) -> None:
        while not self._stopped.wait(RESTART_AFTER):
            for name, machine in self.machines.items():
                if self.restarting and name not in self._held and not machine.lives:
                    machine.start()

    def replace(self, name: str) -> int:
        """SIGTERM for a machine, and another in its place; gives the exit status of the first."""
        self._held.add(name)
        status = self.machines[name].stop()
        self.machines[name].start()
        self._held.discard(name)
        return status

    # --- strikes --------------------------------------------------------------------------------------------------

    def aim(self, kind: str, chosen: random.Random) -> Strike | None:
        """A strike at a part of some machine; None where there is no such part now."""
        if kind in ("database", "store"):
            return Strike(kind, partial(self.away, kind, 5.0))
        name = chosen.choice([name for name in self.machines if name.startswith("api" if kind == "api" else "worker")])
        machine = self.machines[name]
        if not machine.lives or machine.running is None:
            return None
        if kind == "vanish":
            vanishing = threading.Thread(target=self.vanish, args=(name, VANISHED))
            return Strike(kind, vanishing.start, f"%:{machine.running.pid}") if self.network.has_namespaces else None
        if kind in ("api", "worker"):
            return Strike(kind, partial(kill, machine.running), f"%:{machine.running.pid}")
        part = child_of(machine.running, kind, chosen)
        return part and Strike(kind, partial(kill, part))

    def vanish(self, name: str, seconds: float) -> None:
        """Cut a machine off for so long."""
        self.network.cut(name)
        time.sleep(seconds)
        self.network.join(name)

    def away(self, part: str, seconds: float) -> None:
        """Take the store or the database away for so long, or the room on the disk of the store."""
        if part == "store":
            self.store.kill()
            time.sleep(seconds)
            self.store.start()
        else:
            place = self.directory / "database" / "postgres"
            server = self._postmaster()
            place.rename(place.with_name("away"))
            server.kill()
            time.sleep(seconds)
            place.with_name("away").rename(place)
            server.wait(20)
            self.database.ensure_running()

    def _postmaster(self) -> psutil.Process:
        pid_file = self.directory / "database" / "postgres" / "data" / "postmaster.pid"
        return psutil.Process(int(pid_file.read_text().split()[0]))
