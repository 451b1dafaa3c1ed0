"""Standard output of every command is what it was asked for and nothing else: `k=$(recast keys create ci)` is a key."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import typer
from typer.core import TyperGroup

from app.cli.commands import app
from tests.api.conftest import backstage, client, settings, url  # noqa: F401 - the api of these tests, as fixtures
from tests.api.server import Backstage, submit
from tests.cli.running import recast

PRINTING = """
import os
from torch import nn
from recast_plugins import InputSpec, Signature, architecture

def say():
    print("PRINTED by a plug-in")
    os.write(1, b"PRINTED below Python\\n")

say()

@architecture("loud/linear", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 4)),)))
def build() -> nn.Module:
    say()
    return nn.Linear(4, 2)
"""
ID = "[a-z]{3}_[0-9a-f]{32}"
SERVING = {"serve", "api", "worker"}
"""Which print no data, and log."""


def commands(group: TyperGroup, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{name} ")
        else:
            yield before + name


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a plug-in that prints, its weights, and room for a data directory."""
    directory = tmp_path_factory.mktemp("here")
    (directory / "plugins").mkdir()
    (directory / "plugins" / "loud.py").write_text(PRINTING)
    torch.manual_seed(1)
    torch.save(torch.nn.Linear(4, 2).state_dict(), directory / "w.pth")
    return directory


@pytest.fixture
def said(here: Path, backstage: Backstage, url: str) -> Callable[..., str]:  # noqa: F811
    """What a command says on standard output, with a service at hand and every line of log asked for."""

    def run(*arguments: object) -> str:
        told = recast(
            *arguments,
            cache=here / "cache",
            RECAST_PLUGINS_DIR=str(here / "plugins"),
            RECAST_DATA_DIR=str(backstage.settings.data_dir),
            RECAST_DATABASE_URL=backstage.database_url,
            RECAST_SERVER=url,
            RECAST_LOG_LEVEL="debug",
        )
        assert "Traceback" not in told.stderr
        return told.stdout

    return run


def test_every_command_says_what_it_was_asked_for_and_nothing_else(said, here: Path, client, backstage: Backstage):  # noqa: F811
    finished, waiting = submit(client).json()["id"], submit(client, options={"opset": 17}).json()["id"]
    backstage.finish(finished)
    recipe = here / "recipe.json"
    recipe.write_text(json.dumps({"name": "own/none", "base": "nobody/knows"}))
    convert = ("convert", here / "w.pth", "-a", "loud/linear", "-t", "torchscript", "-o", here / "o.pt")
    forms: dict[str, tuple[tuple[object, ...], str]] = {
        "keys create": (("ci",), r"rk_[\w-]{43}\n"),
        "keys list": ((), r"\s*id .*\n(\s*key_.*\n)+"),
        "projects create": (("vision",), rf"{ID}\n"),
        "config": ((), r"variable .*\n(RECAST_.*\n)+"),
        "claim-store": ((), r".* is the store of this database\.\n"),
        "migrate": ((), r"The database has the newest schema\.\n"),
        "backup": ((here / "backup",), r".* holds the database of .*\n"),
        "architectures": (("loud/",), r"name .*\nloud/linear .*\n"),
        "convert": ((*convert[1:], "--bundle", here / "b.zip"), r"\S.*\n(  .*\n)+\S*o\.pt  .*\n"),
        "templates list": ((), r"key .*\n([0-9a-f]{16}  .*\n)*"),
        "templates clear": ((), r"\d+ templates removed\n"),
        "templates warm": (("loud/linear", "-t", "torchscript"), r"loud/linear to torchscript\n\S.*\n(  .*\n)+\S.*\n"),
        "verify": ((here / "b.zip",), r"\d+ members have .*\n((ok|-----) .*\n)+PASSED.*\n"),
        "list": ((), r"id .*\n(cnv_.*\n)+"),
        "show": ((waiting,), rf"{waiting} queued +0%\n"),
        "download": ((finished, "-o", here / "out"), r"\S+\n"),
        "cancel": ((waiting,), rf"{waiting} canceled\n"),
        "logs": ((finished,), r"(?!.*\[(debug|info|warning) )[\s\S]*"),
        "doctor": ((), r"((ok|warning|fault) .*\n)+"),
        "recipes register": ((recipe,), ""),
        "recipes delete": (("own/none",), ""),
        "keys revoke": (("key_" + "0" * 32,), ""),
        "restore": ((here / "nothing",), ""),
    }
    assert set(forms) | SERVING == set(commands(typer.main.get_command(app)))
    for command, (arguments, expected) in forms.items():
        told = said(*command.split(), *arguments)
        assert re.fullmatch(expected, told), (command, told)


@pytest.mark.parametrize("command", ["config", "architectures", "list"])
def test_what_is_json_is_one_document(said, command: str):
    json.loads(said(command, "--json"))


def test_a_key_of_the_embedded_database_is_alone_too(tmp_path: Path):
    """In a process of its own, as a script runs it."""
    order = [sys.executable, "-m", "app.cli", "keys", "create", "ci", "--data-dir", tmp_path / "data"]
    told = subprocess.run(order, capture_output=True, text=True, check=True, timeout=120)
    assert re.fullmatch(r"rk_[\w-]{43}\n", told.stdout)
    assert re.fullmatch(r"key_[0-9a-f]{32}: this is the only time .*\n", told.stderr)
