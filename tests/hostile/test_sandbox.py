"""From inside a conversion process nothing is reached, whoever runs the service, with namespaces and without."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.attacks import ENDINGS
from tests.hostile.inside import COUNTED, FILLING, HOARDING, SECRET

PROJECT = Path(__file__).parents[2]
NOBODY = 65534
NAMESPACES = {"processes", "files", "network", "ipc"}

if os.geteuid() == 0:
    SERVICES = [(0, "granted"), (NOBODY, "granted"), (0, "refused"), (NOBODY, "refused")]
else:
    SERVICES = [(0, "granted"), (0, "refused")]  # as whoever runs the tests


@pytest.fixture(scope="module", params=SERVICES, ids=lambda service: f"user {service[0]}, namespaces {service[1]}")
def attacked(request: pytest.FixtureRequest) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Whether namespaces were refused, and what every attack reached on a service of that user."""
    user, namespaces = request.param
    with tempfile.TemporaryDirectory(prefix="recast-hostile-") as directory:
        os.chown(directory, user or os.geteuid(), -1)
        run = subprocess.run(
            [sys.executable, "-m", "tests.hostile.inside", str(user), namespaces, directory],
            env={**os.environ, "RECAST_DATABASE_URL": f"postgresql://{SECRET}", "MY_API_TOKEN": SECRET},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
        found = json.loads(run.stdout.splitlines()[-1])
        print("in force:", found["in_force"], "missing:", found["missing"])  # noqa: T201 - a failure names the layers
        yield namespaces == "refused", found


@pytest.mark.parametrize(
    "attack",
    [
        *("open_sockets", "read_secrets", "read_files", "write_files", "reach_others", "gain_privileges", "outlive"),
        *("steer_others", "run_memory", "leave_through_descriptors", "send_descriptors"),
        *("leave_what_cannot_be_removed", "hide_in_the_kernel"),
    ],
)
def test_nothing_is_reached(attacked: tuple[bool, dict[str, Any]], attack: str) -> None:
    _, found = attacked
    assert not found[attack], f"{found[attack]} in spite of {found['in_force']}"


def test_it_writes_where_it_may(attacked: tuple[bool, dict[str, Any]]) -> None:
    assert attacked[1]["own_results"] == "x"


def test_forks_are_bounded(attacked: tuple[bool, dict[str, Any]]) -> None:
    refused, found = attacked
    if refused and os.geteuid() == 0 and "user" in found["missing"]:
        assert found["missing"]["user"]  # root's processes are counted by nobody, which it says
        return
    assert 0 < found["fork_without_end"] < 200


@pytest.mark.parametrize("attack", HOARDING)
def test_memory_of_all_processes_is_counted(attacked: tuple[bool, dict[str, Any]], attack: str) -> None:
    assert attacked[1][attack] == "out_of_memory"


@pytest.mark.parametrize("attack", COUNTED)
def test_what_the_kernel_keeps_for_all_processes_is_counted(attacked: tuple[bool, dict[str, Any]], attack: str) -> None:
    assert attacked[1][attack] == "child_crashed"


@pytest.mark.parametrize("way", ENDINGS)
def test_a_process_that_ends_itself_was_not_killed_from_outside(
    attacked: tuple[bool, dict[str, Any]], way: str
) -> None:
    assert attacked[1]["endings"][way] in ("child_crashed", "alive")


@pytest.mark.parametrize("attack", ["spin", "spin later"])
def test_processor_time_of_all_processes_is_bounded(attacked: tuple[bool, dict[str, Any]], attack: str) -> None:
    assert attacked[1][attack] == "timed_out"


@pytest.mark.parametrize("attack", FILLING)
def test_files_are_counted(attacked: tuple[bool, dict[str, Any]], attack: str) -> None:
    assert attacked[1][attack] == "child_crashed"


def test_shared_memory_without_an_owner_is_bounded(attacked: tuple[bool, dict[str, Any]]) -> None:
    assert attacked[1]["fill_shared_memory"] < 1_000
    assert attacked[1]["fill_with_empty_files"] < 20_000


def test_conversions_are_refused_without_what_is_required(attacked: tuple[bool, dict[str, Any]]) -> None:
    """Network isolation, which is required where nothing else is said, is in force either way."""
    refused, found = attacked
    assert found["under the requirement full"] == ("sandbox_unavailable" if refused else "x")


def test_what_the_platform_refuses_is_named(attacked: tuple[bool, dict[str, Any]]) -> None:
    refused, found = attacked
    assert {"landlock", "syscalls", "limits"} <= set(found["in_force"])
    if refused:
        assert set(found["missing"]) >= NAMESPACES
        assert all("not permitted" in found["missing"][layer] for layer in NAMESPACES)
    else:
        assert found["missing"] == {}
