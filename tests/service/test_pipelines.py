"""The GitHub Action and the GitLab component: their steps, run by hand as a runner would run them."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.plugins.tied import TiedLanguageModel
from tests.service.requests import saved
from tests.service.running import Service

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "integrations" / "github" / "action.yml"
COMPONENT = ROOT / "integrations" / "gitlab" / "templates" / "convert.yml"
VERSION = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]["version"]
INSTALL = f'python3 -m pip install --quiet "recast-client=={VERSION}"'


@pytest.fixture
def inputs(service: Service, tmp_path: Path) -> dict[str, str]:
    torch.manual_seed(5)
    (tmp_path / "weights.pth").write_bytes(saved(TiedLanguageModel(120, 24).state_dict()))
    return {"url": service.url, "weights": "weights.pth", "architecture": "sample/tied", "output": "out"}


def filled(text: str, inputs: dict[str, str], opening: str, closing: str) -> str:
    """A template with its inputs filled in."""
    return re.sub(
        re.escape(opening) + r"\s*inputs\.([\w-]+)\s*" + re.escape(closing), lambda match: inputs[match[1]], text
    )


def defaulted(declared: dict[str, Any], inputs: dict[str, str]) -> dict[str, str]:
    missing = [name for name, spec in declared.items() if "default" not in (spec or {}) and name not in inputs]
    assert not missing, missing
    return {name: str((spec or {}).get("default", "")) for name, spec in declared.items()} | inputs


def ran(command: str, place: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def steps_of_the_action(inputs: dict[str, str]) -> tuple[str, str, dict[str, str]]:
    action = yaml.safe_load(ACTION.read_text())
    given = defaulted(action["inputs"], inputs)
    install, convert = action["runs"]["steps"]
    assert "${{" not in install["run"] + convert["run"]
    return install["run"], convert["run"], {k: filled(v, given, "${{", "}}") for k, v in convert["env"].items()}


def test_the_action_converts_and_tells_its_outputs(inputs: dict[str, str], tmp_path: Path):
    install, convert, variables = steps_of_the_action(inputs)
    assert install == INSTALL
    files = {"GITHUB_OUTPUT": str(tmp_path / "outputs"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    done = ran(convert, tmp_path, variables | files)
    assert done.returncode == 0, done.stderr
    outputs = dict(line.split("=", 1) for line in (tmp_path / "outputs").read_text().splitlines())
    declared = yaml.safe_load(ACTION.read_text())["outputs"]
    assert set(outputs) == set(declared)
    assert (tmp_path / outputs["artifact"]).read_bytes()
    assert outputs["verdict"] in (tmp_path / "summary").read_text()


def test_the_action_fails_where_nothing_was_converted(inputs: dict[str, str], tmp_path: Path):
    _, convert, variables = steps_of_the_action({**inputs, "architecture": "sample/unknown; touch pwned"})
    failed = ran(convert, tmp_path, variables)
    assert failed.returncode == 1
    assert "unknown_architecture" in failed.stderr
    assert not (tmp_path / "pwned").exists()
    assert ran(convert, tmp_path, {**variables, "RECAST_OPTIONS": "[]"}).returncode == 2


def test_the_component_converts_and_leaves_file_and_variables(inputs: dict[str, str], tmp_path: Path):
    spec, job = (part for part in COMPONENT.read_text().split("---\n"))
    given = defaulted(yaml.safe_load(spec)["spec"]["inputs"], inputs)
    described = yaml.safe_load(filled(job, given, "$[[", "]]"))["recast-convert"]
    install, convert = described["script"]
    assert install == INSTALL
    done = ran(convert, tmp_path, {name: str(value) for name, value in described["variables"].items()})
    assert done.returncode == 0, done.stderr
    variables = dict(
        line.split("=", 1) for line in (tmp_path / described["artifacts"]["reports"]["dotenv"]).read_text().splitlines()
    )
    assert Path(variables["artifact"]).parent == Path(described["artifacts"]["paths"][0])
    assert (tmp_path / variables["artifact"]).is_file()
