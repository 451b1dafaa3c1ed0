"""What operators and their machines ask."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from app.main import create_app
from app.settings import Settings
from tests.api.server import INSPECTION, submit

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "http-api.md"


def test_liveness_readiness_and_versions(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert set(ready.json()["checks"]) == {"database", "store", "queue", "architectures"}
    assert ready.json()["workers"] == 0
    libraries = client.get("/version").json()["libraries"]
    assert {"python", "torch", "onnx", "onnxruntime"} <= set(libraries)


def test_readiness_counts_the_workers_that_live(client, backstage):
    for living in (1, 2, 0):
        with psycopg.connect(backstage.database_url) as connection:
            connection.execute("delete from workers")
            for number in range(living):
                connection.execute("insert into workers (id, name, room) values (%s, 'w', 'r')", (number,))
            connection.execute(
                "insert into workers (id, name, room, seen_at) values (8, 'silent', 'r', now() - interval '1 day')"
            )
            connection.execute("insert into workers (id, name, room, gone) values (9, 'ended', 'r', true)")
        assert client.get("/readyz").json()["workers"] == living


def test_readiness_says_how_conversions_are_confined_at_every_living_worker(client, backstage):
    assert client.get("/readyz").json()["sandbox"] is None
    told = (
        '{"in_force": {"syscalls": "in force", "network": "in force"}, "missing": {}}',
        '{"in_force": {"syscalls": "in force"}, "missing": {"network": "[Errno 1] Operation not permitted"}}',
    )
    with psycopg.connect(backstage.database_url) as connection:
        for number, one in enumerate(told):
            row = (number, one)
            connection.execute("insert into workers (id, name, room, confinement) values (%s, 'w', 'r', %s)", row)
        connection.execute("insert into workers (id, name, room) values (7, 'starting', 'r')")
    sandbox = client.get("/readyz").json()["sandbox"]
    refused = {"network": "[Errno 1] Operation not permitted"}
    assert sandbox == {"required": "network", "in_force": ["syscalls"], "missing": refused}
    text = client.get("/metrics").text
    assert 'recast_sandbox_layer{layer="syscalls"} 1.0' in text
    assert 'recast_sandbox_layer{layer="network"} 0.0' in text
    with psycopg.connect(backstage.database_url) as connection:
        connection.execute("delete from workers")


def test_readiness_names_plugins_that_are_not_described_yet_and_waits_for_late_ones_no_longer(client, backstage):
    plugins = {"pending": (503, "not_ready"), "late": (200, "ready")}
    for column, (status, word) in plugins.items():
        with psycopg.connect(backstage.database_url) as connection:
            connection.execute(
                f"insert into catalogs (digest, entries, {column}) values (%s, '[]', '[\"slow\"]')", (column,)
            )
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (status, word)
        told = ready.json()["checks"]["architectures"] if column == "pending" else ready.json()["notes"][0]
        assert "slow" in told
    assert client.get("/v1/architectures/acme/net").json()["code"] == "unavailable"
    with psycopg.connect(backstage.database_url) as connection:
        connection.execute("delete from catalogs where digest <> 'digest'")


def test_head_is_answered_wherever_get_is_but_for_streams_of_events(client, backstage):
    conversion = submit(client).json()
    backstage.finish(conversion["id"])
    backstage.inspect(conversion["checkpoint"]["sha256"], INSPECTION)
    made = conversion["links"]
    paths = [made["self"], made["checkpoint"], f"{made['checkpoint']}/parameters"]
    paths += [f"{made['self']}/{part}" for part in ("artifact", "bundle", "report")]
    paths += ["/v1/conversions", "/v1/architectures", "/v1/architectures/torchvision/resnet18", "/v1/schemas/report"]
    paths += ["/v1/problems", "/v1/problems/not_found", "/healthz", "/readyz", "/metrics", "/version", "/docs"]
    for path in [*paths, "/openapi.json"]:
        head, whole = client.head(path), client.get(path)
        assert (head.status_code, head.content, path) == (whole.status_code, b"", path)
        assert head.headers["content-type"] == whole.headers["content-type"]
    assert client.head(f"{made['self']}/events").status_code == 405
    assert client.head("/v1/conversions/cnv_" + "0" * 32).status_code == 404
    allowed = client.patch(made["self"]).headers["allow"]
    assert allowed == "DELETE, GET, HEAD"


def test_metrics_count_requests_by_route_and_conversions_by_state(client):
    path = submit(client).headers["location"]
    client.get(path)
    text = client.get("/metrics").text
    assert re.search(
        r'recast_http_requests_total\{method="GET",route="/v1/conversions/\{conversion_id\}",status="200"\} [1-9]', text
    )
    assert re.search(r'recast_conversions\{state="queued"\} [1-9]', text)
    assert path.rsplit("/", 1)[-1] not in text


def test_the_documentation_page_needs_no_other_host(client):
    page = client.get("/docs").text
    assert re.findall(r'(?:src|href)="(https?:)?//', page) == []
    for asset in re.findall(r'(?:src|href)="(/[^"]+)"', page):
        assert client.get(asset).status_code == 200, asset
    assert client.get("/openapi.json").json()["openapi"].startswith("3.1")


def documented_operations() -> set[tuple[str, str]]:
    """Method and path of each heading of docs/http-api.md, such as "### GET /v1/conversions/{id}"."""
    headings = re.findall(r"^#+ (GET|HEAD|POST|PUT|PATCH|DELETE) (/\S*)$", DOCUMENTATION.read_text(), re.MULTILINE)
    return {(method.lower(), re.sub(r"\{\w+\}", "{}", path)) for method, path in headings}


def test_documentation_and_openapi_name_the_same_operations():
    document = create_app(Settings(), "postgresql://unused@/unused").openapi()
    described = {
        (method, re.sub(r"\{\w+\}", "{}", path)) for path, methods in document["paths"].items() for method in methods
    }
    assert documented_operations() == described


def test_every_reference_of_the_openapi_document_resolves():
    document = create_app(Settings(), "postgresql://unused@/unused").openapi()

    def references(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "$ref":
                    yield value
                else:
                    yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in set(references(document)):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found


@pytest.mark.parametrize("module", ["app.main", "app.cli", "app.cli.serve", "app.cli.convert_remotely"])
def test_neither_api_nor_command_imports_torch(module):
    program = f"import sys, {module}; print([m for m in ('torch', 'numpy', 'onnx', 'onnxruntime') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
