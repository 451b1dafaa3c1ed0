"""What is added to Recast in one place: a target, a check and a family of architectures.

A target is a folder and a name; a check a file, its place in a list, and its reason with a row of the table; a family a
file and its name in the registry. Nothing else is told of them.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import torch

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import load_registry
from tests.service.requests import artifact, convert, saved, succeeded
from tests.service.running import PLUGINS, Service, free_port

ROOT = Path(__file__).parents[2]
FILES = {
    "tests/targets/toy": "app/targets/toy",
    "tests/conversion/verification/checks/toy.py": "app/conversion/verification/checks/toy.py",
    "tests/architectures/toy.py": "app/architectures/toy.py",
}
ROW = """
    Reason.one_sign: Rule(severity="note", title="Outputs are all of one sign"),"""
LINES = (
    ("app/domain/conversion.py", "TargetName = Literal[", '"toy", '),
    (
        "app/conversion/verification/verify.py",
        "checks.session import session\n",
        "from app.conversion.verification.checks.toy import signs\n",
    ),
    (
        "app/conversion/verification/verify.py",
        "FULL = (\n    checker,\n    history,\n    finite_weights,\n    reference,",
        " signs,",
    ),
    ("app/domain/report.py", 'mismatch_accepted = "mismatch_accepted"', '; one_sign = "one_sign"'),
    ("app/domain/reasons.py", "REASONS: Mapping[Reason, Rule] = {", ROW),
    ("app/architectures/registry.py", "timm import TimmModels\n", "from app.architectures.toy import ToyModels\n"),
    ("app/architectures/registry.py", "    libraries = ", "ToyModels(), "),
)
"""Files of the package, what stands in them once, and what is added behind it."""


@pytest.fixture(scope="module")
def path_with_toy(places: Path) -> Path:
    """A copy of the package to which the toys are added."""
    copied, ignore = places / "with-toy", shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "app", copied / "app", ignore=ignore)
    for source, place in FILES.items():
        copy = partial(shutil.copytree, ignore=ignore) if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, copied / place)
    for name, before, added in LINES:
        text = (copied / name).read_text()
        assert text.count(before) == 1, (name, before)
        (copied / name).write_text(text.replace(before, before + added))
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


def test_a_further_check_says_what_it_finds_of_a_further_family(client: httpx.Client) -> None:
    deadline = time.monotonic() + 240
    while client.get("/v1/architectures/toy/odds").status_code != 200:  # until the worker has described its libraries
        assert time.monotonic() < deadline
        time.sleep(0.2)
    weights = {f"layer.{name}": value for name, value in torch.nn.Linear(6, 4).state_dict().items()}
    conversion = succeeded(convert(client, saved(weights), "toy/odds", "torchscript"))
    report = f"/v1/conversions/{conversion['id']}/report"
    told = client.get(report, headers={"Accept": "application/json"}).json()["verification"]
    assert told["verdict"] == "pass_with_notes"
    assert told["findings"] == [
        {"reason": "one_sign", "severity": "note", "detail": "odds is above zero on all probes"}
    ]
    assert "Outputs are all of one sign" in client.get(report, headers={"Accept": "text/html"}).text


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
