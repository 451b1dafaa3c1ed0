"""What verification needs of the model alone is made in another process while the exporter is at work."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> Any:
    command = [sys.executable, "-W", "ignore", "-m", "tests.conversion.prefetching"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


def test_it_gives_what_this_process_would_have_made(found: Any) -> None:
    told = {"forked": True, "gone": True, "waited": True, "same": True, "again": True, "memory": True}
    assert found["same_as_here"] == told


def test_where_it_dies_this_process_does_the_work(found: Any) -> None:
    assert found["killed"] == {"references": 5, "waited": False}


def test_it_is_gone_when_it_is_ended(found: Any) -> None:
    assert found["ended"] == {"before": True, "after": False}


def test_it_does_not_hold_the_line_to_the_supervisor(found: Any) -> None:
    assert found["line_is_not_held"] == {"rest": 0, "seconds": 0, "still": True}


def test_without_a_core_to_spare_nothing_is_forked(found: Any) -> None:
    assert found["one_thread"] == {"forked": False}


def test_a_conversion_with_two_threads_uses_it(found: Any) -> None:
    assert found["conversion"] == {"waited": True, "verdict": "pass"}
