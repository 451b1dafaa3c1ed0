"""A target is one folder and one name: nothing else of Recast is told of it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import load_registry
from tests.service.requests import artifact, convert, succeeded
from tests.service.running import PLUGINS, Service, free_port

ROOT = Path(__file__).parents[2]
NAME = "TargetName = Literal["


@pytest.fixture(scope="module")
def path_with_toy(places: Path) -> Path:
    """A copy of the package that has a folder and a name more."""
    copied = places / "with-toy"
    shutil.copytree(ROOT / "app", copied / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "tests/targets/toy", copied / "app/targets/toy", ignore=shutil.ignore_patterns("__pycache__")
    )
    names = copied / "app/domain/conversion.py"
    text = names.read_text()
    assert text.count(NAME) == 1
    names.write_text(text.replace(NAME, f'{NAME}"toy", '))
    return copied


@pytest.fixture(scope="module")
def client(places: Path, path_with_toy: Path) -> Iterator[httpx.Client]:
    running = Service(places / "toy", free_port(), {"PYTHONPATH": str(path_with_toy)})
    running.start()
    try:
        with httpx.Client(base_url=running.url, timeout=300) as client:
            yield client
    finally:
        assert running.stop() == 0, running.log[-4000:]


def test_it_is_converted_to_verified_and_downloaded(client: httpx.Client, tmp_path: Path) -> None:
    save_checkpoint(load_registry(PLUGINS), "sample/tied", {}, tmp_path / "weights.pth")
    weights = (tmp_path / "weights.pth").read_bytes()
    conversion = succeeded(convert(client, weights, "sample/tied", "toy", options='{"greeting": "good day"}'))
    head = json.loads(artifact(client, conversion).partition(b"\n")[0])
    report = client.get(f"/v1/conversions/{conversion['id']}/report", headers={"Accept": "application/json"}).json()
    assert conversion["artifact"]["filename"].endswith(".toy")
    assert head["greeting"] == "good day"
    assert report["verification"]["ledger"]["passed"]
    assert {entry["ledger_class"] for entry in report["verification"]["ledger"]["entries"]} <= {"identical", "tied_to"}
    assert all(probe["passed"] for probe in report["verification"]["probes"])
    assert report["export"]["template"]["state"] == "built"


def test_its_name_and_options_stand_wherever_targets_do(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert "greeting" in document["components"]["schemas"]["ToyOptions"]["properties"]
    assert "toy" in client.get("/v1/architectures/sample/tied").json()["targets"]
    assert client.get("/v1/conversions", params={"target": "toy"}).json()["items"]
    assert "Toy" in client.get("/", headers={"Accept": "text/html"}).text
    refused = convert(client, b"", "sample/tied", "toy", options='{"greetings": "hi"}')
    assert refused.json()["code"] == "invalid_options"
    assert "greeting" in refused.json()["hint"]


def test_the_command_line_knows_it_too(path_with_toy: Path, tmp_path: Path) -> None:
    save_checkpoint(load_registry(PLUGINS), "sample/tied", {}, tmp_path / "weights.pth")
    command = [sys.executable, "-m", "app.cli", "convert", "weights.pth", "-a", "sample/tied", "-t", "toy", "-o", "m"]
    environment = {
        **os.environ,
        "RECAST_PLUGINS_DIR": str(PLUGINS),
        "PYTHONPATH": str(path_with_toy),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "m").read_bytes().startswith(b'{"greeting": "hello"')
