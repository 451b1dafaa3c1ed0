"""Whichever replica a client comes to, it is one service; and a machine that vanishes loses nothing."""

import hashlib
import json
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import httpx
import psycopg
import pytest
from safetensors.torch import save
from torch import nn

from scripts.fleet import Fleet

pytestmark = pytest.mark.slow

LIMIT = 300.0


@pytest.fixture(scope="module")
def apis(fleet: Fleet) -> Iterator[list[httpx.Client]]:
    clients = [httpx.Client(base_url=url, timeout=LIMIT) for url in fleet.urls]
    yield clients
    for client in clients:
        client.close()


def weights() -> bytes:
    """Of the net of scripts/plugins, other ones each time."""
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    return save({name: tensor.detach() for name, tensor in net.state_dict().items()})


def submit(api: httpx.Client, seconds: float = 0, content: bytes | None = None, **headers: str) -> httpx.Response:
    uploaded = api.put("/v1/checkpoints", content=content or weights())
    assert uploaded.is_success, uploaded.text
    order = {
        "checkpoint": uploaded.json()["sha256"],
        "architecture": "chaos/net",
        "architecture_options": {"seconds": seconds},
    }
    return api.post("/v1/conversions", json={**order, "target": "onnx"}, headers=headers)


def until(api: httpx.Client, id: str, *states: str) -> dict:
    deadline = time.monotonic() + LIMIT
    while (found := api.get(f"/v1/conversions/{id}").json())["state"] not in states:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def events(api: httpx.Client, id: str, **headers: str) -> list[tuple[str, dict]]:
    """Ids and data of the events of a conversion, to the end of the stream."""
    found = []
    with api.stream("GET", f"/v1/conversions/{id}/events", headers=headers) as answer:
        text = answer.read().decode().replace("\r\n", "\n")
    for block in text.split("\n\n"):
        lines = dict(re.findall(r"^(\w+): ?(.*)$", block, re.MULTILINE))
        if "id" in lines:
            found.append((lines["id"], json.loads(lines["data"])))
    return found


@contextmanager
def vanished(fleet: Fleet, name: str) -> Iterator[None]:
    """A machine is cut off for the block; where there are no namespaces its process stands still instead."""
    if fleet.network.has_namespaces:
        fleet.network.cut(name)
        yield
        fleet.network.join(name)
    else:
        process = fleet.machines[name].running
        assert process
        process.send_signal(signal.SIGSTOP)
        yield
        process.send_signal(signal.SIGCONT)


def test_a_request_that_is_repeated_at_another_replica_makes_one_conversion(apis: list[httpx.Client]) -> None:
    content, key = weights(), uuid4().hex
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda n: submit(apis[n % 2], content=content, **{"Idempotency-Key": key}), range(4))
        )
    assert {answer.status_code for answer in answers} <= {200, 202}
    (id,) = {answer.json()["id"] for answer in answers}
    until(apis[1], id, "succeeded")
    other = submit(apis[1], content=weights(), **{"Idempotency-Key": key})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


def test_the_same_bytes_sent_to_both_at_once_are_one_checkpoint(apis: list[httpx.Client], fleet: Fleet) -> None:
    content = weights()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda n: apis[n % 2].put("/v1/checkpoints", content=content), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    sha256 = hashlib.sha256(content).hexdigest()
    assert {answer.json()["sha256"] for answer in answers} == {sha256}
    assert (fleet.objects / "sha256" / sha256[:2] / sha256[2:]).read_bytes() == content


def test_events_are_followed_at_one_replica_and_resumed_at_another(apis: list[httpx.Client]) -> None:
    id = submit(apis[0], seconds=2).json()["id"]
    whole = events(apis[1], id)
    assert [data["state"] for _, data in whole if "state" in data][-1] == "succeeded"
    assert events(apis[0], id, **{"Last-Event-ID": whole[0][0]}) == whole[1:]


def test_a_conversion_is_cancelled_at_another_replica_than_it_was_sent_to(apis: list[httpx.Client]) -> None:
    id = submit(apis[0], seconds=500).json()["id"]
    until(apis[0], id, "running")
    assert apis[1].post(f"/v1/conversions/{id}/cancel").status_code in (200, 202)
    assert apis[0].get(f"/v1/conversions/{id}").json()["state"] == "canceled"


def test_a_full_queue_is_full_at_every_replica(apis: list[httpx.Client]) -> None:
    ids = []
    refused = None
    for number in range(30):
        answer = submit(apis[number % 2], seconds=300)
        if answer.status_code == 429:
            refused = answer
            break
        ids.append(answer.json()["id"])
    assert refused is not None
    assert refused.headers["Retry-After"]
    other = submit(apis[(len(ids) + 1) % 2], seconds=300)
    assert (other.status_code, other.json()["code"]) == (429, refused.json()["code"])
    for id in ids:
        apis[0].post(f"/v1/conversions/{id}/cancel")


def test_a_download_from_the_store_itself_carries_the_files_name(apis: list[httpx.Client]) -> None:
    id = submit(apis[0]).json()["id"]
    conversion = until(apis[1], id, "succeeded", "failed")
    assert conversion["state"] == "succeeded", conversion["problem"]
    sent = apis[1].get(f"/v1/conversions/{id}/artifact", params={"redirect": "true"})
    assert sent.status_code == 307
    answer = httpx.get(sent.headers["Location"])
    assert hashlib.sha256(answer.content).hexdigest() == conversion["artifact"]["sha256"]
    assert answer.headers["Content-Disposition"] == 'attachment; filename="chaos-net.onnx"'
    assert httpx.get(sent.headers["Location"].replace("X-Amz-Signature=", "X-Amz-Signature=0")).status_code == 403


def test_a_file_that_is_sent_in_parts_to_both_replicas_comes_together_in_their_store(apis: list[httpx.Client]) -> None:
    whole = weights()
    version = {"Tus-Resumable": "1.0.0"}
    begun = apis[0].post("/v1/uploads", headers={**version, "Upload-Length": str(len(whole))})
    assert begun.status_code == 201, begun.text
    path, half = begun.headers["location"], len(whole) // 2
    part = {**version, "Content-Type": "application/offset+octet-stream"}
    for api, at, sent in ((apis[1], 0, whole[:half]), (apis[0], half, whole[half:])):
        assert api.head(path, headers=version).headers["upload-offset"] == str(at)
        answer = api.patch(path, headers={**part, "Upload-Offset": str(at)}, content=sent)
        assert answer.status_code == 204, answer.text
    sha256 = hashlib.sha256(whole).hexdigest()
    assert answer.headers["content-location"] == f"/v1/checkpoints/{sha256}"
    known = apis[1].get(f"/v1/checkpoints/{sha256}", headers={"Prefer": "wait=60"}).json()
    assert known["tensor_count"] == 4


def test_what_runs_on_a_machine_that_vanishes_runs_elsewhere_and_ends_once(
    apis: list[httpx.Client], fleet: Fleet
) -> None:
    id = submit(apis[0], seconds=10).json()["id"]
    until(apis[0], id, "running")
    with psycopg.connect(fleet.database_url) as connection:
        (worker,) = connection.execute("select worker from conversions where id = %s", (id,)).fetchone()
    (name,) = [n for n, m in fleet.machines.items() if m.running and worker.endswith(f":{m.running.pid}")]
    with vanished(fleet, name):
        assert until(apis[1], id, "succeeded", "failed")["state"] == "succeeded"
    finished = apis[0].get(f"/v1/conversions/{id}").json()
    assert finished["attempt"] == 2
    fleet.until_ready(LIMIT)  # it is taken back
    ends = [data for _, data in events(apis[0], id) if data.get("state") == "succeeded"]
    assert len(ends) == 1
    assert apis[0].get(f"/v1/conversions/{id}").json() == finished


def test_workers_are_replaced_one_after_the_other_and_nothing_fails_or_counts(
    apis: list[httpx.Client], fleet: Fleet
) -> None:
    ids = [submit(apis[number % 2], seconds=15).json()["id"] for number in range(4)]
    until(apis[0], ids[0], "running")
    assert [fleet.replace(name) for name in fleet.machines if name.startswith("worker")] == [0, 0]
    for id in ids:
        assert until(apis[0], id, "succeeded", "failed")["state"] == "succeeded"
    with psycopg.connect(fleet.database_url) as connection:
        query = "select max(workers_lost) from conversions where id = any(%s)"
        assert connection.execute(query, (ids,)).fetchone() == (0,)
