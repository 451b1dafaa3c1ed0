"""The Helm chart: linted, rendered in several ways, and every manifest held to Kubernetes' own schemas."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from helm_python.chart import Chart, lint

from app.api.browsers import allowed_hosts
from app.cli import commands
from app.settings import Settings

PROJECT = Path(__file__).parents[2]
CHART = PROJECT / "deploy" / "helm" / "recast"
PODS = ("Deployment", "Job")
CUSTOM = {"ServiceMonitor"}
"""Kinds that are no part of Kubernetes."""
GIVEN: dict[str, Any] = {
    "database": {"existingSecret": "recast-database"},
    "store": {"url": "s3://recast", "existingSecret": "recast-store", "environment": {"AWS_REGION": "eu-west-1"}},
}
OTHERWISE: dict[str, Any] = {
    "database": {
        "url": "postgresql://recast:secret@postgres/recast",
        "workerRole": "recast_worker",
        "workerSecret": "recast-worker-database",
    },
    "store": {"url": "s3://recast", "existingSecret": "recast-store", "workerSecret": "recast-worker-store"},
    "image": {"digest": "sha256:" + "ab" * 32},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"children": 4, "retention_days": "null", "allowed_hosts": ["recast.example.com"]},
    "traces": {"endpoint": "http://collector:4318"},
    "api": {
        "autoscaling": {"enabled": True},
        "ingress": {"enabled": True, "host": "recast.example.com", "tlsSecret": "t"},
    },
    "signing": {"existingSecret": "recast-signing"},
    "worker": {
        "autoscaling": {"enabled": True},
        "drainSeconds": 60,
        "nodeSelector": {"pool": "cpu"},
        "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/recast.json"},
        "appArmorProfile": {"type": "Localhost", "localhostProfile": "recast"},
    },
    "networkPolicy": {"apiFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
    "serviceMonitor": {"enabled": True, "keySecret": "recast-key"},
}


def manifests(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with Chart.load(CHART) as chart:
        for name, text in chart.render(values, name="demo", namespace="recast").items():
            if name.endswith(".txt"):
                continue
            yield from (one for one in yaml.safe_load_all(text) if isinstance(one, dict))


def by_name(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{one['kind']} {one['metadata']['name']}": one for one in manifests(values)}


def containers(one: dict[str, Any]) -> list[dict[str, Any]]:
    return one["spec"]["template"]["spec"]["containers"]


def test_the_chart_has_nothing_to_complain_of():
    found = lint(CHART, GIVEN, strict=True)
    assert [message for message in found["messages"] if message["severity"] > 1] == []
    assert not found["errors"]


@pytest.mark.parametrize("values", [GIVEN, OTHERWISE], ids=["given", "otherwise"])
def test_every_manifest_is_valid(values):
    kinds = set()
    for one in manifests(values):
        kinds.add(one["kind"])
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, "1.37", strict=True)
    wanted = {"Deployment", "Service", "Job", "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount"}
    wanted |= {"Secret", "HorizontalPodAutoscaler", "Ingress", "ServiceMonitor"} if values is OTHERWISE else set()
    assert kinds == wanted


def test_what_an_installation_must_say_is_asked_for():
    wrong = [{"store": {"url": "no url"}}, {"worker": {"seccompProfile": {"type": "Localhost"}}}]
    wrong += [{"settings": {"signing_key": "in the manifests"}}, {"worker": {"seccompProfile": {"type": "Unknown"}}}]
    wrong += [{"database": {**GIVEN["database"], "workerRole": "recast_worker"}}, {"settings": {"worker_role": "mine"}}]
    missing = [{}, {"database": GIVEN["database"]}, {"store": GIVEN["store"]}]
    for values in missing + [{**GIVEN, **members} for members in wrong]:
        with pytest.raises(helm_python.errors.HelmError):
            list(manifests(values))


@pytest.mark.parametrize("values", [GIVEN, OTHERWISE], ids=["given", "otherwise"])
def test_pods_may_do_nothing_beyond_their_work(values):
    pods = [one for one in manifests(values) if one["kind"] in ("Deployment", "Job")]
    assert len(pods) == 3
    for one in pods:
        pod = one["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        granted = values.get(one["metadata"]["labels"]["app.kubernetes.io/component"], {})
        assert pod["securityContext"]["seccompProfile"] == granted.get("seccompProfile", {"type": "RuntimeDefault"})
        assert pod["securityContext"].get("appArmorProfile") == granted.get("appArmorProfile")
        for container in containers(one):
            held = container["securityContext"]
            assert held["readOnlyRootFilesystem"] is True
            assert held["allowPrivilegeEscalation"] is False
            assert held["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("values", [GIVEN, OTHERWISE], ids=["given", "otherwise"])
def test_variables_are_settings_and_commands_exist(values):
    settings = {f"RECAST_{name.upper()}" for name in Settings.model_fields}
    known = {command.name or command.callback.__name__ for command in commands.app.registered_commands}
    for one in manifests(values):
        for container in containers(one) if one["kind"] in ("Deployment", "Job") else ():
            named = {variable["name"] for variable in container["env"]}
            assert {name for name in named if name.startswith("RECAST_")} <= settings
            assert container["args"][0] in known


def secrets(values: dict[str, Any]) -> dict[str, set[str]]:
    """Of each part, the Secrets that it is given."""
    parts = {one["metadata"]["name"]: containers(one)[0] for one in manifests(values) if one["kind"] in PODS}
    return {
        name: {one["valueFrom"]["secretKeyRef"]["name"] for one in part["env"] if "valueFrom" in one}
        | {one["secretRef"]["name"] for one in part.get("envFrom", ())}
        for name, part in parts.items()
    }


def test_a_part_is_given_the_secrets_that_it_needs_and_no_other():
    """The worker signs statements; who may ask is the api's matter, in tables that the worker's role does not read."""
    assert secrets(OTHERWISE) == {
        "demo-api": {"demo-database", "recast-signing", "recast-store"},
        "demo-worker": {"recast-worker-database", "recast-signing", "recast-worker-store"},
        "demo-migrate": {"demo-database"},
    }
    one_for_all = {"recast-database", "recast-store"}
    assert secrets(GIVEN) == {"demo-api": one_for_all, "demo-worker": one_for_all, "demo-migrate": {"recast-database"}}


def test_who_migrates_grants_workers_what_they_need():
    found = {name: containers(one)[0]["env"] for name, one in by_name(OTHERWISE).items() if one["kind"] in PODS}
    told = {name: [one["value"] for one in env if one["name"] == "RECAST_WORKER_ROLE"] for name, env in found.items()}
    assert told == {
        "Deployment demo-api": ["recast_worker"],
        "Job demo-migrate": ["recast_worker"],
        "Deployment demo-worker": [],
    }


def test_the_notes_make_a_key_as_the_owner_of_the_tables():
    with Chart.load(CHART) as chart:
        (notes,) = [text for name, text in chart.render(OTHERWISE, name="demo").items() if name.endswith("NOTES.txt")]
    command = shlex.split(notes[notes.index("kubectl") :])
    (overrides,) = [json.loads(word.partition("=")[2]) for word in command if word.startswith("--overrides=")]
    (container,) = overrides["spec"]["containers"]
    assert container["args"][:2] == ["keys", "create"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "demo-database", "key": "url"}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "recast-keys"}, **overrides}, "1.37", strict=True
    )


def test_settings_arrive_as_they_were_given(monkeypatch):
    worker = by_name(OTHERWISE)["Deployment demo-worker"]
    for variable in containers(worker)[0]["env"]:
        if "value" in variable:
            monkeypatch.setenv(variable["name"], variable["value"])
    settings = Settings()
    assert (settings.children, settings.retention_days, settings.allowed_hosts) == (4, None, ("recast.example.com",))
    assert settings.drain_timeout == 60
    assert worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > settings.drain_timeout


def test_the_api_is_asked_whether_it_lives_and_serves_and_a_worker_is_reached_by_nobody():
    found = by_name(GIVEN)
    (api,) = containers(found["Deployment demo-api"])
    assert api["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert api["livenessProbe"]["httpGet"]["path"] == api["startupProbe"]["httpGet"]["path"] == "/healthz"
    for values in (GIVEN, OTHERWISE):  # under a name that is answered whatever allowed_hosts says
        (api,) = containers(by_name(values)["Deployment demo-api"])
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            (header,) = api[probe]["httpGet"]["httpHeaders"]
            assert header["name"] == "Host"
            assert allowed_hosts(Settings(allowed_hosts=("recast.example.com",))).admits(header["value"])
    assert found["Deployment demo-api"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "ports" not in containers(found["Deployment demo-worker"])[0]
    assert found["NetworkPolicy demo-worker"]["spec"]["ingress"] == []
    assert set(found["NetworkPolicy demo-worker"]["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_workers_are_added_by_the_age_of_the_queue():
    scaler = by_name(OTHERWISE)["HorizontalPodAutoscaler demo-worker"]
    (metric,) = scaler["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == "recast_queue_oldest_seconds"
    adapter = (PROJECT / "deploy" / "monitoring" / "prometheus-adapter.yaml").read_text()
    assert metric["external"]["metric"]["name"] in adapter
    assert "replicas" not in by_name(OTHERWISE)["Deployment demo-worker"]["spec"]


def test_migrations_run_before_an_upgrade():
    job = by_name(GIVEN)["Job demo-migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,pre-upgrade"
    assert containers(job)[0]["args"] == ["migrate"]


def test_no_secret_stands_in_a_manifest_that_is_no_secret():
    for one in manifests(OTHERWISE):
        if one["kind"] != "Secret":
            assert "recast:secret@" not in yaml.safe_dump(one)
