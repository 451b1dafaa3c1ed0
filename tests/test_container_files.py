"""The container files cannot be run everywhere the tests run, so what they name is held to the project."""

import json
import re
from pathlib import Path

import yaml

from app.api.browsers import allowed_hosts
from app.settings import Settings

PROJECT = Path(__file__).parents[1]
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
COMPOSE_TEXT = (PROJECT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
OURS = ("migrate", "api", "worker", "courier")


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
    for service in OURS:
        environment = COMPOSE["services"][service]["environment"]
        assert {name for name in environment if name.startswith("RECAST_")} <= settings


def test_each_part_is_told_its_own_secrets_and_no_other():
    told = {name: json.dumps(service) for name, service in COMPOSE["services"].items()}
    assert {name: set(re.findall(r"\$\{RECAST_(\w*)PASSWORD", text)) for name, text in told.items()} == {
        "migrate": {"DATABASE_", "WORKER_DATABASE_"},
        "api": {"DATABASE_", "API_STORE_"},
        "worker": {"WORKER_DATABASE_", "WORKER_STORE_"},
        "courier": {"WORKER_DATABASE_", "WORKER_STORE_"},
        "postgres": {"DATABASE_"},
        "gateway": {"API_STORE_", "WORKER_STORE_"},
        "store": {"STORE_"},
    }


def test_the_keys_of_the_store_are_those_that_the_parts_have_and_reach_no_further_than_the_bucket():
    parts = {name: COMPOSE["services"][name]["environment"] for name in ("api", "worker")}
    keys = json.loads(COMPOSE["services"]["gateway"]["environment"]["KEYS"])["identities"]
    for key in keys:
        (credentials,) = key["credentials"]
        assert credentials["accessKey"] == parts[key["name"]]["AWS_ACCESS_KEY_ID"]
        assert credentials["secretKey"] == parts[key["name"]]["AWS_SECRET_ACCESS_KEY"]
        assert key["actions"] == ["Read:recast", "Write:recast", "List:recast"]
    assert {key["name"] for key in keys} == set(parts)


def test_no_password_has_a_default():
    rests = re.findall(r"\$\{\w*PASSWORD([^}]*)\}", COMPOSE_TEXT)
    assert len(rests) >= 4
    assert all(rest.startswith(":?") for rest in rests)
    assert not re.findall(r"PASSWORD: (?!\$)", COMPOSE_TEXT)


def test_no_part_can_change_anything_of_its_container():
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True
        assert service["tmpfs"]
        assert service["cap_drop"] == ["ALL"]
        assert ("cap_add" in service) == (name in ("postgres", "store")), name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["pids_limit"]
        assert service["mem_limit"]


def test_what_is_published_without_keys_answers_to_names_of_this_machine_alone(monkeypatch):
    variables = dict(re.findall(r"^\s+(RECAST_\w+)=(\S+?)(?: \\)?$", DOCKERFILE, re.MULTILINE))
    environment = COMPOSE["services"]["api"]["environment"]
    variables |= {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", environment[name]) for name in environment}
    for name, value in variables.items():
        if name.startswith("RECAST_"):
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert not settings.on_loopback
    assert not settings.keys_required
    assert settings.allowed_hosts
    hosts = allowed_hosts(settings)
    assert all(hosts.admits(host) for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000"))
    assert not any(hosts.admits(host) for host in ("evil.example", "evil.example:8000", "10.0.0.7:8000", ""))
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["api"]["ports"])
    (asked,) = re.findall(r"http://([\w.]+):", DOCKERFILE[DOCKERFILE.index("HEALTHCHECK") :])
    assert hosts.admits(asked)


def test_only_the_api_is_reached_from_outside_and_parts_do_not_reach_each_other():
    services = COMPOSE["services"]
    assert all(network["internal"] for name, network in COMPOSE["networks"].items() if name != "outside")
    assert {name for name, service in services.items() if "ports" in service} == {"api"}
    assert {name for name, service in services.items() if "outside" in service["networks"]} == {"api", "courier"}
    inside = {name: set(service["networks"]) - {"outside"} for name, service in services.items()}
    reached = {name: {other for other in inside if inside[other] & networks} for name, networks in inside.items()}
    for name in ("worker", "courier"):
        assert reached[name] == {name, "postgres", "gateway"}
    assert reached["api"] == {"api", "migrate", "postgres", "gateway"}
    assert reached["store"] == {"store", "gateway"}


def test_what_converts_has_no_way_out_and_what_has_one_converts_nothing():
    done = {name: COMPOSE["services"][name]["environment"]["RECAST_WORKER_QUEUES"] for name in ("worker", "courier")}
    assert done == {"worker": '["conversions"]', "courier": '["transfers"]'}


def test_the_image_runs_as_a_user_of_its_own_and_tells_its_health():
    assert re.search(r"^USER (?!root)\w+$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE


def test_everything_that_is_installed_is_known_by_its_hash():
    for lock in PROJECT.glob("requirements*.lock"):
        text = lock.read_text()
        pins = re.findall(r"^[\w.-]+(?:\[[\w,-]+\])?==.*(?:\n    .*)*", text, re.MULTILINE)
        assert len(pins) == text.count("==") - text.count(" == ")
        assert [pin.split()[0] for pin in pins if "--hash=sha256:" not in pin] == [], "run scripts/lock"
        assert "://" not in text
    setup = (PROJECT / "scripts" / "setup").read_text()
    assert setup.count("pip install") == setup.count("--require-hashes") + setup.count("--no-build-isolation")
    assert DOCKERFILE.count("pip install") == DOCKERFILE.count("--require-hashes -r") == 1


def test_images_of_others_are_named_by_digest():
    named = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    named += [
        service["image"].partition(":-")[2].rstrip("}")
        for service in COMPOSE["services"].values()
        if ":-" in service["image"]
    ]
    assert len(named) == 4
    assert [image for image in named if not re.fullmatch(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}", image)] == []
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    assert json.loads((PROJECT / "renovate.json").read_text())["enabledManagers"] == ["dockerfile", "docker-compose"]


def test_compose_starts_the_commands_that_exist():
    from app.cli import commands

    names = {command.callback.__name__ for command in commands.app.registered_commands if command.callback}
    for service in OURS:
        assert COMPOSE["services"][service]["command"][0] in names
