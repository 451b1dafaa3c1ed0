"""Where a command is run decides nothing: modules that lie there are never imported, by whatever process it starts."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import torch

from app.architectures.registry import load_registry
from tests.cli.running import PLUGINS

pytestmark = pytest.mark.slow

RECAST = Path(sys.executable).with_name("recast")
NAMES = ("app/__init__.py", "torch.py", "random.py", "selectors.py", "onnx.py", "numpy.py")
LIMIT = 120.0


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working directory whose modules bear the names of real ones and tell when they are imported."""
    directory = tmp_path / "hostile"
    (directory / "app").mkdir(parents=True)
    for name in NAMES:
        (directory / name).write_text(f"print({name!r}, file=open({str(tmp_path / 'imported')!r}, 'a'))\n")
    return directory


@pytest.fixture
def start(hostile: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `recast ARGUMENTS` there, with a plug-in whose error is the module path of the process that tries it."""
    plugins = shutil.copytree(PLUGINS, tmp_path / "plugins")
    (plugins / "paths.py").write_text("import sys\nraise RuntimeError('|'.join(['paths', *sys.path, 'end']))\n")
    started = []

    def run(*arguments: object) -> subprocess.Popen[bytes]:
        settings = {"RECAST_PLUGINS_DIR": str(plugins), "RECAST_DATA_DIR": str(tmp_path / "data")}
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(RECAST), *map(str, arguments)], cwd=hostile, env={**os.environ, **settings}, stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield run
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(load_registry(PLUGINS).build("sample/tied", {}, initialised=True).state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.2)


def imported(tmp_path: Path) -> list[str]:
    found = tmp_path / "imported"
    return found.read_text().splitlines() if found.exists() else []


def module_path(log: Path) -> list[str]:
    """sys.path of the process that tried the plug-ins, as the log tells its error."""
    told = re.search(r"paths\|(.*?)\|end", log.read_text())
    assert told is not None, log.read_text()[-4000:]
    return told[1].split("|")


def test_a_service_starts_and_converts_there(start, weights: Path, hostile: Path, tmp_path: Path):
    process = start("serve", "--port", 0)
    log = tmp_path / "log"
    until(lambda: "Recast is ready" in log.read_text(), process, log)
    url = next(line.split()[-1] for line in log.read_text().splitlines() if line.startswith("Recast listens on"))
    with weights.open("rb") as file:
        answer = httpx.post(
            f"{url}/v1/conversions",
            headers={"Prefer": "wait=200"},
            files={"file": file},
            data={"architecture": "sample/tied", "target": "torchscript"},
            timeout=240,
        )
    assert answer.json().get("state") == "succeeded", answer.text
    until(lambda: "|end" in log.read_text(), process, log)
    assert imported(tmp_path) == []
    assert {"", ".", str(hostile)}.isdisjoint(module_path(log))


def test_a_worker_alone_and_its_forkserver_import_nothing_from_there(start, hostile: Path, tmp_path: Path):
    process = start("worker")
    log = tmp_path / "log"
    until(lambda: "|end" in log.read_text(), process, log)
    assert imported(tmp_path) == []
    assert {"", ".", str(hostile)}.isdisjoint(module_path(log))


def test_a_conversion_in_process_imports_nothing_from_there(start, weights: Path, tmp_path: Path):
    process = start("convert", weights, "-a", "sample/tied", "-t", "torchscript", "-o", tmp_path / "out.pt")
    assert process.wait(timeout=LIMIT) in (0, 3), (tmp_path / "log").read_text()
    assert imported(tmp_path) == []


def test_the_doctor_examines_the_installed_libraries(start, tmp_path: Path):
    start("doctor").wait(timeout=LIMIT)
    assert imported(tmp_path) == []
