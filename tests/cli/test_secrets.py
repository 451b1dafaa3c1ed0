"""What a part is told over a pipe, it and nobody else learns."""

import os
import subprocess
import sys

from app.cli.secrets import VARIABLE, SecretsPipe

READ = "from app.cli.secrets import inherited_secrets; print(inherited_secrets(), inherited_secrets())"
SHOW = "from pathlib import Path; print(Path('/proc/self/environ').read_text())"


def run(program: str, secrets: dict[str, str]) -> str:
    pipe = SecretsPipe()
    command, environment = [sys.executable, "-c", program], {**os.environ, **pipe.variables}
    started = subprocess.Popen(command, env=environment, pass_fds=(pipe.reader,), stdout=subprocess.PIPE)
    pipe.started()
    pipe.tell(secrets)
    return started.communicate()[0].decode()


def test_secrets_are_told_once() -> None:
    assert run(READ, {"database_url": "postgresql://secret"}) == "{'database_url': 'postgresql://secret'} {}\n"


def test_no_environment_holds_them() -> None:
    shown = run(SHOW, {"database_url": "postgresql://secret"})
    assert VARIABLE in shown
    assert "postgresql://secret" not in shown


def test_a_process_that_was_told_nothing_knows_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, check=True, text=True)
    assert done.stdout == "{} {}\n"


def test_telling_one_that_has_ended_is_no_error() -> None:
    pipe = SecretsPipe()
    pipe.started()
    pipe.tell({"database_url": "postgresql://secret"})
