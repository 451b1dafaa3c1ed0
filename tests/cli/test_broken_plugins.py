"""`recast architectures` lists plug-ins that could not be loaded, whatever they do, and a wrong directory at once."""

import json
from pathlib import Path

from tests.cli.running import recast

GOOD = """
from torch import nn
from recast_plugins import InputSpec, Signature, architecture

print("a plug-in that prints")

@architecture("good/linear", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 4)),)))
def build() -> nn.Module:
    return nn.Linear(4, 2)
"""
BROKEN = {"leaves": "import os; os._exit(3)", "raises": "raise RuntimeError('no licence')", "empty": "VALUE = 1"}


def test_broken_plugins_are_told_beside_the_list(tmp_path: Path) -> None:
    for name, source in {"good": GOOD, **BROKEN}.items():
        (tmp_path / f"{name}.py").write_text(source)
    told = recast("architectures", "good", "--json", RECAST_PLUGINS_DIR=str(tmp_path))
    assert told.returncode == 0, told.stderr
    assert "good/linear" in [entry["name"] for entry in json.loads(told.stdout)]
    for name, words in {"leaves": "status 3", "raises": "no licence", "empty": "declares no architecture"}.items():
        assert f"the plug-in {name} could not be loaded" in told.stderr
        assert words in told.stderr


def test_a_plugins_directory_that_does_not_exist_is_told_in_one_line(tmp_path: Path) -> None:
    for command in ("architectures", "serve", "worker"):
        told = recast(command, RECAST_PLUGINS_DIR=str(tmp_path / "missing"))
        assert told.returncode == 2
        assert told.stderr.splitlines() == [
            f"recast: Settings.plugins_dir: Value error, there is no directory {tmp_path / 'missing'}"
        ]
