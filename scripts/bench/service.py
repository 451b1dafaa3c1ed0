"""A Recast of its own for a measurement: `recast serve` on a free port with a temporary data directory."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

START_LIMIT = 240.0
"""Seconds until the service must be ready."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_service(**settings: str) -> Iterator[httpx.Client]:
    """A client of a fresh service. ``settings`` are RECAST_... variables without their prefix, in lower case."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="recast-bench-") as directory:
        environment = {**os.environ, **{f"RECAST_{name.upper()}": value for name, value in settings.items()}}
        command = [str(Path(sys.executable).with_name("recast")), "serve"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--data-dir", f"{directory}/data"]
        with (Path(directory) / "service.log").open("w+b") as log:
            service = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=900) as client:
                    wait_until_ready(client, service, log.name)
                    yield client
            finally:
                service.send_signal(signal.SIGTERM)
                service.wait(timeout=60)


def wait_until_ready(
    client: httpx.Client, service: "subprocess.Popen[bytes]", log: str, asked: str = "/readyz"
) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise SystemExit(f"The service ended:\n{Path(log).read_text()[-4000:]}")
        try:
            if client.get(asked).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"The service was not ready in time:\n{Path(log).read_text()[-4000:]}")
