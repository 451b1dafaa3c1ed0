"""A service run by an ordinary user, and attacks by a plug-in's code that come in by a conversion.

With namespaces, and where the platform refuses them: then what still holds is told, and no network is among it.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.hostile.inside import OUTSIDE, SECRET
from tests.hostile.test_sandbox import NAMESPACES, NOBODY
from tests.service.requests import saved
from tests.service.running import Service, free_port

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
USER = NOBODY if os.geteuid() == 0 else 0


@pytest.fixture(scope="module", params=["granted", "refused"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service of an ordinary user, with the attacking plug-in and namespaces or without."""
    with tempfile.TemporaryDirectory(prefix="recast-hostile-") as directory:
        plugins = Path(directory, "plugins")
        plugins.mkdir()
        source = [(HERE / name).read_text() for name in ("attacks.py", "plugins/attacker.py")]
        (plugins / "attacker.py").write_text("\n".join(source))
        os.chown(directory, USER or os.geteuid(), -1)
        launcher = (sys.executable, "-m", "tests.hostile.inside", str(USER), request.param, directory)
        settings = {"RECAST_PLUGINS_DIR": str(plugins), "MY_API_TOKEN": SECRET, "PYTHONPATH": str(HERE.parents[1])}
        running = Service(Path(directory, "data"), free_port(), settings, launcher=launcher)
        running.start()
        try:
            yield running
        finally:
            running.stop()


def attack(service: Service, name: str, arguments: Any = None) -> tuple[str, str]:
    """How the conversion ended in which the attack ran: ok, or its code and what it told."""
    options = {"attack": name, "arguments": arguments}
    state = {"scores.weight": torch.randn(4, 8), "scores.bias": torch.randn(4)}
    answer = httpx.post(
        f"{service.url}/v1/conversions",
        headers={"Prefer": "wait=240"},
        files={"file": ("w.pth", saved(state))},
        data={"architecture": "hostile/attacker", "target": "onnx", "architecture_options": json.dumps(options)},
        timeout=300,
    ).json()
    if answer.get("state") == "succeeded":
        return "ok", ""
    return answer["code"], answer["detail"]


def left_behind(service: Service) -> list[str]:
    """Processes whose output is the log of one of the service's conversions."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                if os.readlink(place / "fd" / "1").startswith(f"{service.data_dir}/work/"):
                    found.append(place.name)
            except OSError:
                continue
    return found


def test_the_layers_that_the_platform_refuses_are_named(service: Service, request: pytest.FixtureRequest) -> None:
    assert attack(service, "") == ("ok", "")
    sandbox = httpx.get(f"{service.url}/readyz").json()["sandbox"]
    assert {"landlock", "syscalls", "limits", "user"} <= set(sandbox["in_force"])
    if "refused" in request.node.callspec.id:
        assert set(sandbox["missing"]) == NAMESPACES
        assert all("not permitted" in reason for reason in sandbox["missing"].values())
    else:
        assert sandbox["missing"] == {}


def test_nothing_of_the_service_or_the_machine_is_reached(service: Service) -> None:
    data = service.data_dir
    database = next(data.glob("postgres/**/.s.PGSQL.*"), data / "postgres")
    assert attack(service, "")[0] == "ok"
    stored = next(path for path in data.glob("objects/sha256/*/*"))
    attempts = {
        "open_sockets": [str(database), service.port],
        "read_secrets": SECRET,
        "read_files": [str(stored), str(data / "postgres"), str(data / "postgres" / "password"), "/etc/shadow"],
        "reach_others": None,
        "gain_privileges": None,
        "steer_others": None,
        "run_memory": None,
        "leave_through_descriptors": None,
        "outlive": None,
    }
    ended = {name: attack(service, name, arguments) for name, arguments in attempts.items()}
    assert ended == dict.fromkeys(attempts, ("ok", ""))
    assert left_behind(service) == []


def test_a_job_whose_files_resist_leaves_none_of_them(service: Service) -> None:
    """Whatever becomes of it: it closed its own directories to itself."""
    code, _ = attack(service, "leave_what_cannot_be_removed")
    assert code in ("ok", "child_crashed", "conversion_failed", "build_failed")
    deadline = time.monotonic() + 60
    while (left := list(service.data_dir.glob("work/worker-*/convert-*"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert attack(service, "") == ("ok", "")


def test_nothing_is_written_outside(service: Service) -> None:
    places = [*OUTSIDE, str(service.data_dir), str(service.data_dir / "objects"), str(HERE)]
    attack(service, "write_files", places)
    assert [place for place in places if Path(place, "written").exists()] == []


def test_forks_are_bounded_and_end(service: Service) -> None:
    """Refused beyond a number, or ended for having more."""
    code, told = attack(service, "fork_without_end")
    assert code == "child_crashed" or int(told.rpartition("reached ")[2].split(".")[0]) < 200
    assert left_behind(service) == []


@pytest.mark.parametrize("kind", ["done", "failed", "progress"])
def test_what_it_says_in_place_of_the_conversion_is_not_believed(service: Service, kind: str) -> None:
    problem = {"code": "worker_lost", "title": "t", "status": 200, "detail": "d"}
    said = {"kind": kind, "result": {"files": []}, "problem": problem, "stage": "publish", "progress": 1.0}
    members = {"done": ("result",), "failed": ("problem",), "progress": ("stage", "progress")}[kind]
    code, _ = attack(service, "say", {"kind": kind, **{name: said[name] for name in members}})
    assert code == "child_crashed"
