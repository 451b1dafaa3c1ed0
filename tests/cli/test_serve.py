"""`recast serve` keeps its parts running, serves the command's orders, and stops cleanly."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from app.architectures.registry import load_registry
from app.cli.part import Part, RunningPart
from app.cli.serve import keep_running
from tests.cli.running import PLUGINS, recast


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    """Process and address of a service that is ready."""
    directory = tmp_path_factory.mktemp("serve")
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--data-dir", str(directory / "data")]
    environment = {**os.environ, "RECAST_PLUGINS_DIR": str(PLUGINS), "PYTHONUNBUFFERED": "1"}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        listens, ready = process.stdout.readline(), process.stdout.readline()
        assert listens.startswith("Recast listens on http://127.0.0.1:"), (directory / "log").read_text()[-4000:]
        assert ready.startswith("Recast is ready")
        yield process, listens.split()[-1]
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)


def data_dir_of(process: subprocess.Popen) -> Path:
    return Path(process.args[process.args.index("--data-dir") + 1])


def parts(process: subprocess.Popen) -> dict[str, psutil.Process]:
    """The supervised processes by name."""
    found = {}
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):  # one that just died
            words = child.cmdline()
            found.update({name: child for name in ("api", "worker") if name in words})
    return found


def test_the_command_converts_on_a_server(service, tmp_path: Path):
    _, url = service
    torch.manual_seed(5)
    module = load_registry(PLUGINS).build("sample/tied", {}, initialised=True)
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    outputs = ("-o", tmp_path / "out.pt", "--report", tmp_path / "report.json", "--bundle", tmp_path / "bundle.zip")
    order = ("convert", tmp_path / "weights.pth", "-a", "sample/tied", "-t", "torchscript", *outputs)
    told = recast(*order, "--server", url)
    assert told.returncode in (0, 3), told.stderr
    loaded = torch.jit.load(tmp_path / "out.pt")
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert recast("verify", tmp_path / "bundle.zip").returncode == 0
    refused = recast(
        "convert", tmp_path / "weights.pth", "-a", "sample/tide", "-o", tmp_path / "no.onnx", "--server", url
    )
    assert refused.returncode == 1
    assert "sample/tied" in refused.stderr
    assert not (tmp_path / "no.onnx").exists()


def test_architectures_are_found_on_a_server(service):
    _, url = service
    listed = recast("architectures", "sample tied", "--server", url)
    assert "sample/tied" in listed.stdout
    described = json.loads(recast("architectures", "sample/tied", "--server", url).stdout)
    assert described["signature"]["inputs"]
    unknown = recast("architectures", "no-such-thing", "--server", url)
    assert unknown.returncode == 1


@pytest.mark.parametrize("part", ["worker", "api"])
def test_a_part_that_dies_is_started_again(service, part):
    process, url = service
    before = parts(process)
    before[part].kill()
    deadline = time.monotonic() + 60
    while (now := parts(process)).get(part, before[part]).pid == before[part].pid:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while True:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                break
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)
    other = "api" if part == "worker" else "worker"
    assert now[other].pid == before[other].pid


def postmaster_of(directory: Path) -> psutil.Process:
    return psutil.Process(int((directory / "postgres" / "data" / "postmaster.pid").read_text().split()[0]))


def until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_database_that_is_killed_is_started_again(service):
    process, url = service
    before = parts(process)
    postmaster = postmaster_of(data_dir_of(process))
    postmaster.kill()
    until_ready(url)
    assert postmaster_of(data_dir_of(process)) != postmaster
    assert {name: part.pid for name, part in parts(process).items()} == {n: p.pid for n, p in before.items()}


def test_a_part_that_dies_again_and_again_ends_nothing_else(service):
    process, url = service
    api = parts(process)["api"]
    for _ in range(6):
        while (worker := parts(process).get("worker")) is None:
            time.sleep(0.05)
        worker.kill()
        worker.wait(20)
    assert process.poll() is None
    assert parts(process)["api"] == api
    until_ready(url)


def test_a_second_one_on_the_same_data_directory_is_refused_in_words(service):
    process, _ = service
    second = recast("serve", "--port", "0", "--data-dir", data_dir_of(process))
    assert second.returncode == 2
    assert str(process.pid) in second.stderr
    assert "--data-dir" in second.stderr


def test_sigterm_stops_everything_with_status_0(service):
    process, url = service
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/healthz", timeout=5)


@pytest.mark.parametrize(
    ("part", "setting", "value", "told"),
    [
        ("serve", "RECAST_STORE_URL", "s3://", "names no object store"),
        ("api", "RECAST_STORE_URL", "ftp://host/place", "names no object store"),
        ("worker", "RECAST_STORE_URL", "ftp://host/place", "names no object store"),
        ("serve", "RECAST_DATABASE_URL", "mysql://localhost/recast", "is no URL of a PostgreSQL"),
        ("serve", "RECAST_DATABASE_URL", "postgresql://localhost:port/recast", "is no URL of a PostgreSQL"),
        ("serve", "RECAST_DATA_DIR", "/dev/null/data", "cannot be used"),
    ],
)
def test_wrong_settings_end_every_part_with_their_cause(part, setting, value, told, tmp_path: Path):
    environment = {**os.environ, "RECAST_DATA_DIR": str(tmp_path), "RECAST_PORT": "0", setting: value}
    command = [sys.executable, "-m", "app.cli", part]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, told in ended.stderr) == (2, True), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.anyio
async def test_a_part_that_cannot_run_with_its_settings_ends_everything_and_one_that_crashes_does_not():
    stop = asyncio.Event()
    keep = partial(keep_running, stop=stop, grace=5, secrets={})

    def running(program: str) -> RunningPart:
        return RunningPart(Part("test", [sys.executable, "-c", program], os.environ))

    crashing = asyncio.create_task(keep(running("exit(1)")))
    assert await keep(running("import time; time.sleep(1); exit(2)")) == 2
    assert stop.is_set()
    assert await crashing == 0
