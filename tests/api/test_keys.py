"""Keys and projects: who may ask, and that no project learns of another one's things."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from app.api import preflight, principals
from app.main import create_app
from app.settings import Settings
from tests.api.server import INSPECTION, Backstage, serving, sha256, submit, weights
from tests.cli.keys import make_key, make_project
from tests.delivery.reports import report


@pytest.fixture(scope="module")
def guarded(backstage: Backstage) -> Iterator[str]:
    """Address of an api that wants a key."""
    settings = Settings(data_dir=backstage.settings.data_dir, require_keys=True)
    with serving(settings, backstage.database_url) as url:
        yield url


@pytest.fixture(scope="module")
def as_key(guarded: str, backstage: Backstage) -> Iterator:
    """Clients by project and scopes."""
    opened = []

    def client(project: str = "default", *scopes: str, **details) -> httpx.Client:
        secret = make_key(backstage.database_url, project, scopes or ("read", "convert"), **details)
        made = httpx.Client(base_url=guarded, timeout=60, headers={"Authorization": f"Bearer {secret}"})
        opened.append(made)
        return made

    yield client
    for made in opened:
        made.close()


@pytest.fixture(scope="module")
def two_projects(backstage: Backstage) -> tuple[str, str]:
    return make_project(backstage.database_url, "vision"), make_project(backstage.database_url, "speech")


def test_without_a_key_nothing_is_told(guarded):
    for method, path in (("GET", "/v1/conversions"), ("POST", "/v1/conversions"), ("GET", "/v1/architectures"),
                         ("GET", "/metrics"), ("GET", "/"), ("GET", "/conversions"), ("GET", "/v1/keys")):  # fmt: skip
        answer = httpx.request(method, f"{guarded}{path}")
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/healthz", "/readyz", "/version", "/docs", "/openapi.json", "/v1/problems", "/v1/schemas/report"):
        assert httpx.get(f"{guarded}{path}").status_code == 200, path


@pytest.mark.parametrize(
    "header", ["Bearer rk_wrong", "Bearer", "rk_x", "Basic !!", "Basic cms6d3Jvbmc=", "Digest x", "Bearer \xff"]
)
def test_what_is_no_key_is_refused(guarded, header):
    answer = httpx.get(f"{guarded}/v1/conversions", headers={"Authorization": header.encode("latin-1")})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_a_browser_may_send_the_key_as_a_password(guarded, backstage):
    secret = make_key(backstage.database_url, "default", ("read",))
    assert httpx.get(f"{guarded}/", auth=("anybody", secret)).status_code == 200


def test_revoked_and_expired_keys_are_refused(as_key, backstage, monkeypatch):
    monkeypatch.setattr(principals, "REMEMBERED_SECONDS", 0.0)
    expired = as_key("default", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert expired.get("/v1/conversions").status_code == 401
    admin = as_key("default", "read", "convert", "admin")
    made = admin.post("/v1/keys", json={"name": "short-lived", "scopes": ["read"]}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert admin.get("/v1/conversions", headers=headers).status_code == 200
    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert admin.get("/v1/conversions", headers=headers).status_code == 401
    listed = {key["id"]: key for key in admin.get("/v1/keys").json()["items"]}
    assert listed[made["id"]]["revoked_at"]
    assert listed[made["id"]]["last_used_at"]
    assert "key" not in listed[made["id"]]


def test_a_key_is_shown_once_and_kept_as_a_digest(as_key, backstage):
    made = as_key("default", "read", "convert", "admin").post("/v1/keys", json={"name": "n", "scopes": ["read"]})
    assert made.status_code == 201
    assert re.fullmatch(r"rk_[A-Za-z0-9_-]{43}", made.json()["key"])
    with psycopg.connect(backstage.database_url) as connection:
        row = str(connection.execute("select * from api_keys where id = %s", (made.json()["id"],)).fetchall())
    assert sha256(made.json()["key"].encode()) in row
    assert made.json()["key"] not in row


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x"},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "", "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "expires_at": "soon"},
        {"name": "x", "scopes": ["read"], "more": 1},
    ],
)
def test_keys_that_make_no_sense_are_not_made(as_key, body):
    answer = as_key("default", "read", "convert", "admin").post("/v1/keys", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_scopes_decide_what_a_key_may_do(as_key):
    reader = as_key("default", "read")
    assert reader.get("/v1/conversions").status_code == 200
    for answer in (
        submit(reader),
        reader.post("/v1/checkpoints", content=weights()),
        reader.delete("/v1/conversions/x"),
    ):
        assert (answer.status_code, answer.json()["code"], answer.json()["scope"]) == (403, "scope_missing", "convert")
    user = as_key("default")
    assert submit(user).status_code == 202
    for method, path in (
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys"),
        ("GET", "/v1/audit"),
        ("POST", "/v1/projects"),
        ("GET", "/metrics"),
    ):
        answer = user.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), path
    assert as_key("default", "convert").get("/v1/conversions").json()["scope"] == "read"


PART = {
    "Tus-Resumable": "1.0.0",
    "Upload-Offset": "0",
    "Content-Type": "application/offset+octet-stream",
    "X-HTTP-Method-Override": "DELETE",
}
"""Of a request that is one of resumable uploads: others are refused whatever they name."""


def things_of(client: httpx.Client, backstage: Backstage, content: bytes) -> dict[str, str]:
    """Ids of a conversion that has finished, one that waits, and their checkpoint."""
    finished = submit(client, content, labels={"secret": "yes"}).json()
    backstage.finish(finished["id"])
    backstage.inspect(sha256(content), INSPECTION)
    waiting = submit(client, content, options={"opset": 17}).json()
    webhook = client.post("/v1/webhooks", json={"url": "https://vision.example.com/hook"}).json()
    message = client.post(f"/v1/webhooks/{webhook['id']}/ping").json()
    targets = [{"target": "onnx"}]
    group = client.post(
        "/v1/groups",
        json={"architecture": "torchvision/resnet18", "checkpoint": sha256(content), "targets": targets},
    ).json()
    upload = client.post("/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "100"})
    assert upload.status_code == 201
    return {
        "conversion_id": finished["id"],
        "waiting": waiting["id"],
        "sha256": sha256(content),
        "webhook_id": webhook["id"],
        "message_id": message["id"],
        "group_id": group["id"],
        "upload_id": upload.headers["location"].rpartition("/")[2],
    }


def test_no_route_tells_a_project_of_anothers_things(as_key, backstage, two_projects):
    """Every operation of the document, asked with the other project's ids, answers as if they did not exist."""
    owner, stranger = as_key(two_projects[0]), as_key(two_projects[1], "read", "convert", "admin")
    theirs = things_of(owner, backstage, weights(b"of the vision project"))
    with psycopg.connect(backstage.database_url) as connection:
        key_id = connection.execute("select id from api_keys where project_id = %s", (two_projects[0],)).fetchone()[0]
    for told in ("/administration", "/checkpoints"):
        assert not any(
            id in stranger.get(told, headers={"Accept": "text/html"}).text for id in (*theirs.values(), key_id)
        )  # before it asks for these ids itself, which its audit log then tells
    document = create_app(Settings(), "postgresql://unused@/unused").openapi()
    asked = 0
    for path, methods in document["paths"].items():
        for method in methods:
            for conversion in (theirs["conversion_id"], theirs["waiting"]):
                named = {**theirs, "conversion_id": conversion, "key_id": key_id}
                place = path.format(**named, other_id=theirs["conversion_id"], name="torchvision/resnet18", code="x")
                answer = stranger.request(method, place, headers=PART if path.startswith("/v1/uploads") else {})
                if path == "/v1/audit":  # holds what the stranger itself has asked for above
                    assert {entry["project"] for entry in answer.json()["items"]} == {two_projects[1]}
                    continue
                untold = [id for id in (*theirs.values(), key_id) if id not in place]
                assert not any(id in answer.text for id in untold), (method, place)
                if any(f"{{{name}}}" in path for name in named):
                    asked += 1
                    assert answer.status_code == 404, (method, place, answer.text)
    assert asked > 20
    for name in ("", "/conversions", f"/conversions/{theirs['conversion_id']}", f"/checkpoints/{theirs['sha256']}"):
        page = stranger.get(f"/{name.removeprefix('/')}", headers={"Accept": "text/html"})
        assert theirs["waiting"] not in page.text
        assert page.status_code == (404 if name.count("/") > 1 else 200)
    ids = f"first={theirs['conversion_id']}&second={theirs['waiting']}"
    for hidden in (f"/compare?{ids}", f"/graph/{theirs['conversion_id']}.onnx"):
        assert stranger.get(hidden).status_code == 404
    assert owner.get(f"/v1/conversions/{theirs['waiting']}").json()["state"] == "queued"
    assert owner.get(f"/v1/checkpoints/{theirs['sha256']}").status_code == 200


VOLATILE = ("instance", "request_id")
"""Members of a problem that tell of the request alone."""


def invented(id: str) -> str:
    """An id of the same form that nothing has."""
    return id[:-6] + ("abcdef" if not id.endswith("abcdef") else "fedcba")


def test_what_another_project_has_is_answered_word_for_word_as_what_nobody_has(as_key, backstage, two_projects):
    """On every route, whichever of its ids are another project's, one's own, or invented."""
    content = weights(b"compared with nothing")
    owner, stranger = as_key(two_projects[0]), as_key(two_projects[1], "read", "convert", "admin")
    theirs, own = things_of(owner, backstage, content), things_of(stranger, backstage, weights(b"of the stranger"))
    with psycopg.connect(backstage.database_url) as connection:
        keys = "select id from api_keys where project_id = %s"
        for things, project in ((theirs, two_projects[0]), (own, two_projects[1])):
            things["key_id"] = connection.execute(keys, (project,)).fetchone()[0]
            things["other_id"] = things["conversion_id"]
    compared = set()
    for path, methods in create_app(Settings(), "postgresql://unused@/unused").openapi()["paths"].items():
        ids = [name for name in re.findall(r"{(\w+)}", path) if name in theirs]
        for method in methods if ids else ():
            for mine in ([], *([name] for name in ids if len(ids) > 1)):
                told = []
                for real in (theirs, {name: invented(id) for name, id in theirs.items()}):
                    named = {**real, **{name: own[name] for name in mine}}
                    place = path.format(**named, name="torchvision/resnet18", code="x")
                    headers = {**PART, "Prefer": "wait=0"} if path.startswith("/v1/uploads") else {"Prefer": "wait=0"}
                    answer = stranger.request(method, place, headers=headers)
                    words = answer.text
                    for name, id in named.items():
                        words = words.replace(id, f"<{name}>")
                    problem = {k: v for k, v in json.loads(words or "{}").items() if k not in VOLATILE}
                    headers = {
                        k: v for k, v in answer.headers.items() if k not in ("x-request-id", "date", "content-length")
                    }
                    told.append((answer.status_code, problem, headers))
                compared.add((method, path))
                assert told[0] == told[1], (method, path, mine)
                assert told[0][0] >= 400, (method, path, mine)
    assert len([path for _, path in compared if path.count("{") > 1]) >= 2
    assert len(compared) > 25


def test_lists_and_totals_count_the_own_things_only(as_key, backstage, client):
    hermit = as_key(make_project(backstage.database_url, "hermit"))
    submit(client)
    for path in ("/v1/conversions", "/v1/checkpoints"):
        assert (hermit.get(path).json()["items"], hermit.get(path).json()["total"]) == ([], 0)
    submit(hermit)
    for path in ("/v1/conversions", "/v1/checkpoints"):
        assert (len(hermit.get(path).json()["items"]), hermit.get(path).json()["total"]) == (1, 1)


def test_the_same_file_is_new_to_each_project_and_deleted_for_each(as_key, two_projects, backstage):
    content = weights(b"both have it")
    first, second = as_key(two_projects[0]), as_key(two_projects[1])
    wait = {"Prefer": "wait=0"}
    path = f"/v1/checkpoints/{sha256(content)}"
    assert first.put("/v1/checkpoints?name=mine", content=content, headers=wait).status_code == 201
    assert second.get(path, headers=wait).status_code == 404
    body = {"architecture": "torchvision/resnet18", "target": "onnx", "checkpoint": sha256(content)}
    assert second.post("/v1/conversions", json=body).json()["code"] == "unknown_checkpoint"
    told = second.put("/v1/checkpoints", content=content, headers=wait)
    assert (told.status_code, told.json()["name"], told.json()["filename"]) == (201, None, None)
    assert first.put("/v1/checkpoints", content=content, headers=wait).status_code == 200
    assert second.delete(path).status_code == 204
    assert second.get(path, headers=wait).status_code == 404
    assert first.get(path, headers=wait).json()["name"] == "mine"
    assert first.delete(path).status_code == 204
    with psycopg.connect(backstage.database_url) as connection:
        assert connection.execute("select 1 from checkpoints where sha256 = %s", (sha256(content),)).fetchone() is None


def test_what_is_known_of_a_file_is_known_in_one_project(as_key, two_projects, backstage):
    """Who sends what another project sent before is told what who sends something new is told, and has it read anew."""
    content = weights(b"read for one of them")
    first, second = as_key(two_projects[0]), as_key(two_projects[1])
    path, wait = f"/v1/checkpoints/{sha256(content)}", {"Prefer": "wait=0"}
    conversion = submit(first, content).json()["id"]
    backstage.publish(conversion, report().model_copy(update={"checkpoint_sha256": sha256(content)}))
    assert first.get(f"{path}/parameters", headers=wait).json()["totals"]["trainable"] is not None
    assert second.put("/v1/checkpoints", content=content, headers=wait).json()["inspected_at"] is None
    assert second.get(path, headers=wait).json()["format"] is None
    assert second.get(f"{path}/parameters", headers=wait).json()["code"] == "not_ready"
    backstage.inspect(sha256(content), INSPECTION)
    read = second.get(path, headers=wait).json()
    assert read["inspected_at"] > read["created_at"]
    assert second.get(f"{path}/parameters", headers=wait).json()["totals"]["trainable"] is None
    assert first.get(f"{path}/parameters", headers=wait).json()["totals"]["trainable"] is not None


def test_finished_twins_and_idempotency_keys_are_of_one_project(as_key, two_projects, backstage):
    content = weights(b"twins of two projects")
    first, second = as_key(two_projects[0]), as_key(two_projects[1])
    headers = {"Idempotency-Key": "the-same"}
    made = submit(first, content).json()["id"]
    backstage.finish(made)
    assert submit(first, content).json()["id"] == made
    other = submit(second, content)
    assert (other.status_code, other.json()["id"] != made) == (202, True)
    ids = set()
    for client in (first, second):
        files = {"file": ("w.pth", weights(b"one key"))}
        body = {"architecture": "torchvision/resnet18", "target": "onnx"}
        ids.add(client.post("/v1/conversions", headers=headers, data=body, files=files).json()["id"])
    assert len(ids) == 2


def test_admins_of_a_project_administer_that_one_alone(as_key, two_projects):
    admin, operator = (as_key(project, "read", "convert", "admin") for project in (two_projects[0], "default"))
    made = admin.post("/v1/keys", json={"name": "of the project", "scopes": ["read"]}).json()
    assert made["project"] == two_projects[0]
    for name in ("speech", two_projects[1], "default", "nothing"):
        refused = admin.post("/v1/keys", json={"name": "x", "scopes": ["read"], "project": name})
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert {key["project"] for key in admin.get("/v1/keys").json()["items"]} == {two_projects[0]}
    assert [project["name"] for project in admin.get("/v1/projects").json()["items"]] == ["vision"]
    assert admin.post("/v1/projects", json={"name": "more"}).json()["code"] == "scope_missing"
    assert {"default", "vision", "speech"} <= {p["name"] for p in operator.get("/v1/projects").json()["items"]}
    assert operator.post("/v1/keys", json={"name": "x", "scopes": ["read"], "project": "speech"}).status_code == 201
    assert operator.post("/v1/projects", json={"name": "vision"}).json()["code"] == "invalid_request"
    for limit in (True, "5", 5.5, -1):
        refused = operator.post("/v1/projects", json={"name": "odd", "limits": {"queued": limit}})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), limit


def test_the_audit_log_tells_who_did_what_and_how_it_ended(as_key, two_projects):
    user, admin = as_key(two_projects[0]), as_key(two_projects[0], "read", "convert", "admin")
    made = submit(user, name="audited").headers["location"]
    user.post(f"{made}/cancel", headers={"X-Request-ID": "audit-1"})
    user.post(f"{made}/cancel")
    entries = [entry for entry in admin.get("/v1/audit").json()["items"] if entry["subject"] == f"{made}/cancel"]
    assert [(entry["action"], entry["outcome"]) for entry in entries] == [
        ("cancel_conversion", "already_finished"),
        ("cancel_conversion", "ok"),
    ]
    assert entries[1]["request_id"] == "audit-1"
    assert entries[1]["key"].startswith("key_")
    page = admin.get("/v1/audit", params={"limit": 1}).json()
    assert admin.get("/v1/audit", params={"limit": 1, "cursor": page["next_cursor"]}).json()["items"] != page["items"]


def test_limits_of_a_project_hold(as_key, backstage):
    content = weights(b"counted")
    limits = {"queued": 1, "stored_bytes": len(content) * 3, "conversions_per_day": 2}
    client = as_key(make_project(backstage.database_url, "limited", **limits))
    first = submit(client, content)
    assert first.status_code == 202
    full = submit(client, content, options={"opset": 17})
    assert (full.status_code, full.json()["code"]) == (429, "quota_exceeded")
    assert full.headers["retry-after"]
    client.post(f"{first.headers['location']}/cancel")
    assert submit(client, content, options={"opset": 17}).status_code == 202
    more = client.post("/v1/checkpoints", content=weights(b"x" * 10_000), headers={"Prefer": "wait=0"})
    assert (more.status_code, more.json()["code"]) == (429, "quota_exceeded")


def test_no_body_names_what_another_project_has(as_key, backstage, two_projects, monkeypatch):
    monkeypatch.setattr(preflight, "READING_PATIENCE", 0.1)  # nobody reads files here
    owner, stranger = as_key(two_projects[0]), as_key(two_projects[1])
    content = weights(b"named by others")
    assert owner.post("/v1/checkpoints", content=content, headers={"Prefer": "wait=0"}).status_code == 201
    sha = sha256(content)
    order = {"architecture": "torchvision/resnet18", "target": "onnx"}
    several = {"architecture": "torchvision/resnet18", "targets": [{"target": "onnx"}]}
    for path, body in (
        ("/v1/preflight", {"checkpoint": sha}),
        ("/v1/preflight", {"checkpoint": f"sha256:{sha}", "architecture": "torchvision/resnet18"}),
        ("/v1/conversions", {**order, "checkpoint": sha}),
        ("/v1/conversions", {**order, "checkpoint": {"sha256": sha}}),
        ("/v1/groups", {**several, "checkpoint": sha}),
        ("/v1/groups", {**order, "checkpoints": [sha]}),
    ):
        answer = stranger.post(path, json=body)
        assert answer.status_code in (404, 422), (path, body, answer.text)
        if answer.status_code == 404:
            assert owner.post(path, json=body).json().get("code") != answer.json()["code"], path
    for listed in ("/v1/conversions", "/v1/groups", "/v1/checkpoints"):
        assert sha not in stranger.get(listed).text


def test_a_file_that_a_project_has_is_not_counted_twice_and_one_that_is_announced_is_counted(as_key, backstage):
    content = weights(b"counted once")
    client = as_key(make_project(backstage.database_url, "announcing", stored_bytes=len(content) + 100))
    for _ in range(2):
        assert client.post("/v1/checkpoints", content=content, headers={"Prefer": "wait=0"}).status_code in (200, 201)
    begun = [client.post("/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "60"}) for _ in range(2)]
    assert [answer.status_code for answer in begun] == [201, 429]
    assert begun[1].json()["code"] == "quota_exceeded"


def test_a_project_sends_no_more_files_at_once_than_it_may_at_all_replicas_together(as_key, backstage, guarded):
    client = as_key(make_project(backstage.database_url, "sending", uploads=1))
    settings = Settings(data_dir=backstage.settings.data_dir, require_keys=True)
    content = weights(b"slowly sent").ljust(100_000, b"x")
    head = f"POST /v1/checkpoints HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\nPrefer: wait=0\r\n"
    with serving(settings, backstage.database_url) as replica, psycopg.connect(backstage.database_url) as database:
        database.autocommit = True
        with socket.create_connection(("127.0.0.1", urlsplit(guarded).port)) as connection:
            head += f"Authorization: {client.headers['authorization']}\r\n\r\n"
            connection.sendall(head.encode() + content[:50_000])
            while database.execute("select count(*) from uploads_under_way").fetchone() == (0,):
                threading.Event().wait(0.05)
            for address in (guarded, replica):
                refused = client.post(f"{address}/v1/checkpoints", content=weights(b"another"))
                assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
                assert refused.headers["retry-after"] == "5"
            connection.sendall(content[50_000:])
            assert connection.recv(1000).startswith(b"HTTP/1.1 201")
        assert client.post(f"{replica}/v1/checkpoints", content=weights(b"another")).status_code == 201
        database.execute(
            "insert into uploads_under_way select 'place_of_the_dead', id, now() from projects where name = 'sending'"
        )
        assert client.post("/v1/checkpoints", content=weights(b"a third")).status_code == 201


def test_requests_of_a_key_are_limited_together_by_all_replicas(as_key, backstage, guarded):
    client = as_key(make_project(backstage.database_url, "slow", requests_per_minute=1))
    settings = Settings(data_dir=backstage.settings.data_dir, require_keys=True)
    with serving(settings, backstage.database_url) as replica:
        statuses = []
        for _ in range(6):
            statuses.append(client.get("/v1/conversions").status_code)
            statuses.append(client.get(f"{replica}/v1/conversions").status_code)
    assert statuses == [200] * 10 + [429] * 2
    answer = client.get("/v1/conversions")
    assert answer.json()["code"] == "rate_limited"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert as_key("default").get("/v1/conversions").status_code == 200


def test_on_loopback_a_key_is_not_needed_but_honoured(client, backstage, two_projects):
    secret = make_key(backstage.database_url, two_projects[0], ("read", "convert"))
    mine = submit(client).headers["location"]
    assert client.get(mine, headers={"Authorization": f"Bearer {secret}"}).status_code == 404
    assert client.get(mine).status_code == 200
    assert client.get(mine, headers={"Authorization": "Bearer rk_wrong"}).status_code == 401
