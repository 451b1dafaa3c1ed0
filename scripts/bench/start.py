"""How long the service takes to be ready and to end: on a new data directory, and on a used one with other plug-ins.

Seconds from the start of `recast serve` to the first 200 of /readyz, and from SIGTERM while it is idle to its end; in
between when each phase was through, and how much processor time all of its processes took. Beside them the seconds that
importing torch and the libraries alone takes, which every conversion waits for.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import httpx
from service import free_port

LIMIT = 240.0
IDLE = 5.0
"""Seconds for which it is left alone before it is stopped."""
PHASES = ("database_started", "database_migrated", "worker_started", "catalog_published")
"""Events of the log, of which the first counts: a catalog is published again with what plug-ins offer."""
PLUGIN = """
from torch import nn
from recast_plugins import InputSpec, Signature, architecture

@architecture("bench/{name}", family="bench", signature=Signature(inputs=(InputSpec(name="x", shape=(2, 4)),)))
def net() -> nn.Module:
    return nn.Linear(4, 4)
"""


def started_and_stopped(data: Path, plugins: Path) -> Mapping[str, float]:
    """Seconds to each phase, to ready, and from SIGTERM to the end; and of the processor, of all processes that are
    waited for (the database's are not)."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("recast")), "serve", "--port", str(port), "--data-dir", str(data)]
    told = {"RECAST_PLUGINS_DIR": str(plugins), "RECAST_LOG_FORMAT": "json", "RECAST_LOG_LEVEL": "debug"}
    path, before = data.parent / "service.log", _processor_seconds()
    began = time.time()
    with path.open("wb") as log:
        service = subprocess.Popen(command, env={**os.environ, **told}, stdout=log, stderr=log)
        ready = _ready(port, service, path) - began
        time.sleep(IDLE)
        stopping = time.time()
        service.send_signal(signal.SIGTERM)
        service.wait(LIMIT)
    stopped = time.time() - stopping
    return _phases(path, began) | {"ready": ready, "stop": stopped, "processor": _processor_seconds() - before}


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _phases(log: Path, began: float) -> dict[str, float]:
    reached: dict[str, float] = {}
    for line in log.read_text().splitlines():
        if line.startswith("{") and (event := json.loads(line)).get("event") in PHASES:
            reached.setdefault(event["event"], datetime.fromisoformat(event["timestamp"]).timestamp() - began)
    return reached


def _ready(port: int, service: "subprocess.Popen[bytes]", log: Path) -> float:
    ends = time.time() + LIMIT
    with httpx.Client(timeout=10) as client:
        while time.time() < ends and service.poll() is None:
            try:
                if client.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    return time.time()
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    service.kill()
    raise SystemExit(f"The service did not become ready:\n{log.read_text()[-4000:]}")


def imported() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import app.jobs.warm"], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    imported()  # brings the libraries' files into memory
    figures = {"import_s": imported()}
    runs: dict[str, Mapping[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="recast-bench-") as directory:
        data, plugins = Path(directory, "data"), Path(directory, "plugins")
        plugins.mkdir()
        runs["new"] = started_and_stopped(data, plugins)
        runs["used"] = started_and_stopped(data, plugins)
        (plugins / "added.py").write_text(PLUGIN.format(name="added"))
        runs["changed"] = started_and_stopped(data, plugins)
    columns = [*PHASES, "ready", "stop", "processor"]
    print("| seconds | " + " | ".join(name.replace("_", " ") for name in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, run in runs.items():
        print(f"| {name} | " + " | ".join(f"{run[column]:.2f}" if column in run else "" for column in columns) + " |")
        figures |= {f"{name}_{column}_s": seconds for column, seconds in run.items()}
    print(f"importing the libraries alone: {figures['import_s']:.2f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
