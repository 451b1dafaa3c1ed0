"""The small version of scripts/chaos: parts are killed at random, and nothing that was accepted fails for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]


def test_what_was_accepted_succeeds_whatever_is_killed():
    command = [sys.executable, "-m", "scripts.chaos", "--kills", "3", "--pause", "4", "--unfinished", "2", "--json"]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    counted = json.loads(run.stdout.splitlines()[-1])
    assert counted["accepted"] > 0
    assert counted["succeeded"] == counted["accepted"]
