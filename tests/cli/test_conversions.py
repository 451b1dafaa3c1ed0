"""`recast list | show | cancel | download | logs` against a running api; conversions end as the test says."""

import json
import os
import pty
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.domain.conversion import State
from app.domain.report import Verdict
from tests.api.conftest import backstage, client, settings, url  # noqa: F401 - the api of these tests, as fixtures
from tests.api.server import Backstage, submit, weights


@pytest.fixture
def recast(url: str) -> Any:  # noqa: F811
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
        environment = {**os.environ, "RECAST_SERVER": url}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)

    return run


def test_a_conversion_is_listed_shown_and_downloaded(recast, client, backstage: Backstage, tmp_path: Path):  # noqa: F811
    label = uuid4().hex
    conversion = submit(client, labels={"run": label}).json()["id"]
    waiting = recast("show", conversion)
    assert (waiting.returncode, waiting.stdout.split()[:2]) == (0, [conversion, "queued"])
    backstage.finish(conversion)
    listed = json.loads(recast("list", "--label", f"run:{label}", "--json").stdout)
    assert [(found["id"], found["verdict"]) for found in listed] == [(conversion, "pass")]
    assert conversion in recast("list", "--label", f"run:{label}").stdout
    shown = recast("show", conversion)
    assert shown.returncode == 0, shown.stderr
    assert conversion in shown.stdout
    fetched = recast("download", conversion, "-o", tmp_path / "out", "--json")
    (path,) = json.loads(fetched.stdout)
    assert Path(path).read_bytes().startswith(b"the artifact's bytes")
    assert recast("download", conversion, "-o", tmp_path, "--bundle").stdout.strip() == str(
        tmp_path / f"{conversion}.zip"
    )


def test_the_exit_status_says_how_a_conversion_ended(recast, client, backstage: Backstage):  # noqa: F811
    conversion = submit(client, accept="inconclusive").json()["id"]
    backstage.finish(conversion, verdict=Verdict.inconclusive)
    assert recast("show", conversion).returncode == 3
    assert recast("show", conversion, "--json").returncode == 3


def test_conversions_are_canceled_by_their_ids(recast, client):  # noqa: F811
    ids = [submit(client, weights(uuid4().bytes)).json()["id"] for _ in range(2)]
    canceled = json.loads(recast("cancel", *ids, "--json").stdout)
    assert {found["state"] for found in canceled} <= {State.canceled.value, State.running.value, State.queued.value}
    assert [client.get(f"/v1/conversions/{id}").json()["state"] for id in ids] == ["canceled", "canceled"]


def test_what_is_not_there_is_told_in_words(recast):
    unknown = recast("show", "cnv_" + "0" * 32)
    assert unknown.returncode == 1
    assert "not_found" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_version_completion_and_exit_codes_are_told(recast):
    assert recast("--version").stdout.strip()[0].isdigit()
    assert "Exit status of every command" in recast("--help").stdout
    assert "--install-completion" in recast("--help").stdout


@pytest.mark.parametrize(("answer", "state"), [("y", "canceled"), ("n", "queued")])
def test_an_interrupt_asks_whether_to_cancel(url: str, client, tmp_path: Path, answer: str, state: str):  # noqa: F811
    (tmp_path / "weights.pth").write_bytes(weights(uuid4().bytes))
    order = ("convert", "weights.pth", "-a", "torchvision/resnet18", "-o", "model.onnx", "--server", url)
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "app.cli", *order]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a run of tests in the background ignores
    with subprocess.Popen(
        command, stdin=theirs, stderr=subprocess.PIPE, cwd=tmp_path, text=True, preexec_fn=heed
    ) as running:
        told = running.stderr.readline()
        conversion = told.split()[-1]
        assert told == f"conversion {conversion}\n"
        os.write(terminal, f"{answer}\n".encode())
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
        assert conversion in running.stderr.read()
    os.close(terminal)
    os.close(theirs)
    assert client.get(f"/v1/conversions/{conversion}").json()["state"] == state
    assert not (tmp_path / "model.onnx").exists()
