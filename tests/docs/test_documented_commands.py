"""What README and docs show is run, on a real service: a page cannot show what does not work."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
import yaml

from tests.service.requests import saved
from tests.service.running import Service

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "README.md", ROOT / "client" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"
RUN_ELSEWHERE = {
    "scripts/test": "this is that run",
    "scripts/check": "calls scripts/test",
    "helm": "needs a cluster; tests/deploy renders the chart and validates what comes out",
    "docker": "needs an engine; tests/test_container_files.py reads the files",
    ".venv/bin/recast serve": "the service that the other commands talk to",
}
"""Commands that are not run here, by how they begin, and why."""


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its shell commands, continued lines joined, without what runs elsewhere."""
        lines = [line.split("    #")[0].strip() for line in self.text.replace("\\\n", " ").splitlines()]
        return [line for line in lines if line and not line.startswith(("#", *RUN_ELSEWHERE))]


BLOCKS = [Block(page.name, *match.groups()) for page in PAGES for match in BLOCK.finditer(page.read_text())]


def blocks(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def is_commands(block: Block) -> bool:
    first = block.text.strip().split()[0] if block.text.strip() else ""
    return first.startswith((".venv/bin/", "scripts/", "curl", "recast", "python", "docker", "helm", "RECAST_"))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Path:
    """A directory as the pages assume it: weights.pth of a resnet18, a bundle, its artifact, the key, the commands."""
    from torchvision.models import resnet18

    place = tmp_path_factory.mktemp("documented")
    torch.manual_seed(0)
    (place / "weights.pth").write_bytes(saved(resnet18().state_dict()))
    for path in ROOT.iterdir():
        if path.name not in (".git", "quickstart-data", "recast-data"):
            (place / path.name).symlink_to(path)
    with httpx.Client(base_url=service.url, timeout=300) as client:
        answer = client.post(
            "/v1/conversions",
            headers={"Prefer": "wait=240"},
            data={"architecture": "torchvision/resnet18", "target": "onnx"},
            files={"file": (place / "weights.pth").read_bytes()},
        )
        assert answer.status_code in (200, 201), answer.text
        links = answer.json()["links"]
        (place / "bundle.zip").write_bytes(client.get(links["bundle"]).content)
        (place / "model.onnx").write_bytes(client.get(links["artifact"]).content)
        (place / "recast-key.json").write_bytes(client.get("/.well-known/recast-key").content)
    return place


def ran(command: str, place: Path, service: Service) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.replace(ADDRESS, service.url)],
        cwd=place, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize(
    "command",
    sorted({command for block in blocks("", "sh", "bash") if is_commands(block) for command in block.commands}),
)
def test_a_documented_command_runs(command: str, workplace: Path, service: Service):
    ran(command, workplace, service)


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: f"{block.page}: {block.text[:30]!r}")
def test_documented_json_is_json(block: Block):
    json.loads(block.text)


def test_the_client_page_runs_as_it_stands(workplace: Path, service: Service):
    (block,) = [block for block in blocks("python") if "recast_client" in block.text]
    script = workplace / "documented.py"
    script.write_text(block.text.replace(ADDRESS, service.url))
    ran(f"{sys.executable} documented.py", workplace, service)
    assert list((workplace / "out").iterdir())


def test_documented_pipelines_give_what_the_integrations_take():
    inputs = {
        "uses": yaml.safe_load((ROOT / "integrations/github/action.yml").read_text())["inputs"],
        "component": next(yaml.safe_load_all((ROOT / "integrations/gitlab/templates/convert.yml").read_text()))["spec"][
            "inputs"
        ],
    }
    shown = [yaml.safe_load(block.text) for block in blocks("yaml")]
    steps = [step for part in shown for step in (part if isinstance(part, list) else part["include"])]
    for step in steps:
        kind = "uses" if "uses" in step else "component"
        needed = {name for name, told in inputs[kind].items() if told.get("required") or "default" not in told}
        assert needed <= set(step.get("with") or step["inputs"]) <= set(inputs[kind]), step
    assert len(steps) == 2


def test_every_shown_block_is_of_a_kind_that_is_tried():
    """A new kind of block on a page needs a test of its own here."""
    pictures = [block for block in blocks("") if not is_commands(block)]
    assert {block.language for block in BLOCKS} <= {"", "sh", "bash", "json", "python", "toml", "yaml"}
    for block in pictures:
        assert not re.search(r"^\s*(curl|recast|scripts/|pip|docker) ", block.text, re.MULTILINE), block
