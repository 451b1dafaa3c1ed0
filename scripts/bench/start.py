"""How long the service takes to be ready and to end: on a new data directory, and on a used one with other plug-ins.

Seconds from the start of `recast serve` to the first 200 of /readyz, and from SIGTERM while it is idle to its end.
Beside them the seconds that importing torch and the libraries alone takes, which every conversion waits for.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from service import free_port

LIMIT = 240.0
IDLE = 5.0
"""Seconds for which it is left alone before it is stopped."""
PLUGIN = """
from torch import nn
from recast_plugins import InputSpec, Signature, architecture

@architecture("bench/{name}", family="bench", signature=Signature(inputs=(InputSpec(name="x", shape=(2, 4)),)))
def net() -> nn.Module:
    return nn.Linear(4, 4)
"""


def started_and_stopped(data: Path, plugins: Path) -> tuple[float, float]:
    """Seconds to ready, and to the end."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("recast")), "serve", "--port", str(port), "--data-dir", str(data)]
    environment = {**os.environ, "RECAST_PLUGINS_DIR": str(plugins)}
    began = time.perf_counter()
    with (data.parent / "service.log").open("ab") as log:
        service = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        ready = _ready(port, service, data.parent / "service.log") - began
        time.sleep(IDLE)
        told = time.perf_counter()
        service.send_signal(signal.SIGTERM)
        service.wait(LIMIT)
        return ready, time.perf_counter() - told


def _ready(port: int, service: "subprocess.Popen[bytes]", log: Path) -> float:
    ends = time.perf_counter() + LIMIT
    with httpx.Client(timeout=10) as client:
        while time.perf_counter() < ends and service.poll() is None:
            try:
                if client.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    return time.perf_counter()
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
    with tempfile.TemporaryDirectory(prefix="recast-bench-") as directory:
        data, plugins = Path(directory, "data"), Path(directory, "plugins")
        plugins.mkdir()
        figures["new_ready_s"], figures["new_stop_s"] = started_and_stopped(data, plugins)
        figures["used_ready_s"], figures["used_stop_s"] = started_and_stopped(data, plugins)
        (plugins / "added.py").write_text(PLUGIN.format(name="added"))
        figures["changed_ready_s"], figures["changed_stop_s"] = started_and_stopped(data, plugins)
    print("| | ready s | stopped s |\n|---|---|---|")
    for name in ("new", "used", "changed"):
        print(f"| {name} | {figures[f'{name}_ready_s']:.2f} | {figures[f'{name}_stop_s']:.2f} |")
    print(f"importing the libraries alone: {figures['import_s']:.2f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
