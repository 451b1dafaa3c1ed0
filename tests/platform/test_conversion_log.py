"""What a conversion says, as clients read it."""

from uuid import uuid4

import httpx

from tests.api.server import weights
from tests.platform.conftest import Platform
from tests.platform.tasks import SECRET


def submitted(client: httpx.Client, behaviour: str, filename: str = "weights.pth") -> str:
    answer = client.post(
        "/v1/conversions",
        data={"architecture": f"test/{behaviour}", "target": "onnx"},
        files={"file": (filename, weights(uuid4().bytes))},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_the_log_is_read_while_the_conversion_runs_and_followed_to_its_end(client: httpx.Client, platform: Platform):
    word = uuid4().hex
    id = submitted(client, "speak", word)
    said = ""
    with client.stream("GET", f"/v1/conversions/{id}/log", params={"follow": "true"}) as answer:
        for piece in answer.iter_text():
            said += piece
            if "first" in said and not (platform.told / word).exists():
                assert client.get(f"/v1/conversions/{id}").json()["state"] == "running"
                assert "second" not in client.get(f"/v1/conversions/{id}/log").text
                platform.tell(word)
    assert [line.split()[-1] for line in said.splitlines() if line.endswith(("inspect", "export"))] == [
        "inspect",
        "export",
    ]
    assert "\nsecond\n" in said
    assert said.endswith("[succeeded]\n")
    whole = client.get(f"/v1/conversions/{id}/log")
    assert whole.text == said
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"


def test_the_log_shows_neither_paths_nor_secrets(client: httpx.Client, platform: Platform):
    word = uuid4().hex
    id = submitted(client, "speak", word)
    platform.tell(word)
    client.get(f"/v1/conversions/{id}", headers={"Prefer": "wait=60"})
    said = client.get(f"/v1/conversions/{id}/log").text
    assert "first, with rk_*** of tasks.py\n" in said
    assert SECRET not in said
    assert "/platform" not in said


def test_of_a_conversion_that_prints_without_end_the_beginning_and_the_end_are_kept(client: httpx.Client):
    id = submitted(client, "chatter")
    client.get(f"/v1/conversions/{id}", headers={"Prefer": "wait=60"})
    said = client.get(f"/v1/conversions/{id}/log").text
    assert len(said) < 300_000
    assert "left out ...]" in said
    assert "line 199999 of very many" in said


def test_the_log_of_a_failed_conversion_ends_with_its_problem(client: httpx.Client):
    id = submitted(client, "refuse")
    client.get(f"/v1/conversions/{id}", headers={"Prefer": "wait=60"})
    assert client.get(f"/v1/conversions/{id}/log").text.endswith(
        "[failed: parity_failed: It computes something else.]\n"
    )
