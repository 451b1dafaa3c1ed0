"""The container files cannot be run everywhere the tests run, so what they name is held to the project."""

import re
from pathlib import Path

import yaml

from app.settings import Settings

PROJECT = Path(__file__).parents[1]
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())


def test_every_copied_file_exists_and_is_not_ignored():
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert "scripts/setup" in sources
    for source in sources:
        assert (PROJECT / source).exists(), source
        assert f"!{source}" in ignored, source


def test_every_variable_of_ours_is_a_setting():
    settings = {f"RECAST_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"^\s+(RECAST_\w+)=", DOCKERFILE, re.MULTILINE)) <= settings
    environment = COMPOSE["services"]["api"]["environment"]
    assert {name for name in environment if name.startswith("RECAST_")} <= settings
    assert environment == COMPOSE["services"]["worker"]["environment"]


def test_the_image_runs_as_a_user_of_its_own_and_tells_its_health():
    assert re.search(r"^USER (?!root)\w+$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE


def test_compose_starts_the_commands_that_exist():
    from app.cli import commands

    names = {command.callback.__name__ for command in commands.app.registered_commands if command.callback}
    for service in ("api", "worker"):
        assert COMPOSE["services"][service]["command"][0] in names
