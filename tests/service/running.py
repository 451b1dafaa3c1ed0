"""A real `recast serve` in a process group of its own, so that a test can kill all of it at once."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

PLUGINS = Path(__file__).parent.parent / "plugins"
START_LIMIT = 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Service:
    """`recast serve` on a data directory; it can be stopped, killed and started again."""

    data_dir: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    launcher: tuple[str, ...] = ()
    """A command that becomes the service: it ends with the service's own command in its place."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.data_dir.with_suffix(".log").read_text(errors="replace")

    def start(self) -> None:
        command = [*self.launcher, str(Path(sys.executable).with_name("recast")), "serve", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--data-dir", str(self.data_dir)]
        settings = {"RECAST_PLUGINS_DIR": str(PLUGINS), "RECAST_WORKER_LOST_AFTER": "5", **self.settings}
        environment = {**os.environ, **settings}
        with self.data_dir.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the service ended:\n{self.log[-4000:]}"
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        self.kill_everything()
        raise AssertionError(f"the service was not ready in time:\n{self.log[-4000:]}")

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill_everything(self) -> None:
        """kill -9 of every process that the service started, the database included."""
        assert self.process is not None
        for pid in self._pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(timeout=10)

    def _pids(self) -> list[int]:
        import psutil

        assert self.process is not None
        root = psutil.Process(self.process.pid)
        family = {root.pid, *(child.pid for child in root.children(recursive=True))}
        for process in psutil.process_iter(["cmdline"]):
            if str(self.data_dir) in " ".join(process.info["cmdline"] or ()):
                family.add(process.pid)
                family.update(child.pid for child in process.children(recursive=True))
        return sorted(family - {os.getpid()})
