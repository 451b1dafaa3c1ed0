"""Names, labels and the other ways to find a conversion or a checkpoint again."""

import pytest

from app.domain.report import Verdict
from tests.api.server import submit, weights


def test_a_conversion_keeps_its_name_and_labels_and_is_found_by_them(client):
    mine = {"team": "vision", "run": "pets-1"}
    made = submit(client, name="pets, second try", labels=mine).json()
    assert (made["name"], made["labels"]) == ("pets, second try", mine)
    other = submit(client, labels={"team": "speech"}).json()["id"]

    def found(*labels: str) -> list[str]:
        return [item["id"] for item in client.get("/v1/conversions", params={"label": labels}).json()["items"]]

    assert found("team:vision") == [made["id"]]
    assert found("team:vision", "run:pets-1") == [made["id"]]
    assert found("team:vision", "run:pets-2") == []
    assert found("team:speech") == [other]
    assert client.get(made["links"]["self"]).json()["labels"] == mine


@pytest.mark.parametrize(
    "members",
    [
        {"labels": {str(number): "x" for number in range(33)}},
        {"labels": {"": "x"}},
        {"labels": {"a b": "x"}},
        {"labels": {"a": 1}},
        {"labels": {"a": "x" * 201}},
        {"labels": {"a": "x\n"}},
        {"labels": {"k" * 64: "x"}},
        {"labels": '["a"]'},
        {"name": "x" * 201},
        {"name": "x\ty"},
    ],
)
def test_names_and_labels_that_cannot_be_kept_are_refused(client, members):
    answer = submit(client, **members)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_as_many_labels_as_may_be_are_kept(client):
    labels = {f"{'k' * 60}{number}": "v" * 200 for number in range(32)}
    assert submit(client, labels=labels).json()["labels"] == labels


def test_lists_are_filtered_by_verdict_and_family_and_tell_their_total(client, backstage):
    passed, noted = (submit(client, labels={"batch": "verdicts"}).json()["id"] for _ in range(2))
    vit = submit(client, architecture="timm/vit_tiny_patch16_224", labels={"batch": "verdicts"}).json()["id"]
    backstage.finish(passed)
    backstage.finish(noted, verdict=Verdict.pass_with_notes)

    def listed(**wanted) -> dict:
        return client.get("/v1/conversions", params={"label": "batch:verdicts", **wanted}).json()

    assert [item["id"] for item in listed(verdict="pass")["items"]] == [passed]
    assert [item["id"] for item in listed(verdict="pass_with_notes")["items"]] == [noted]
    assert [item["id"] for item in listed(family="vit")["items"]] == [vit]
    assert listed(family="unheard-of")["items"] == []
    assert (listed()["total"], listed(limit=1)["total"], listed(family="resnet")["total"]) == (3, 3, 2)
    assert client.get("/v1/conversions?verdict=good").status_code == 422
    assert client.get("/v1/conversions?label=no-colon").json()["code"] == "invalid_request"


def test_pages_are_linked_in_a_header(client):
    for _ in range(3):
        submit(client, labels={"batch": "linked"})
    seen = []
    path = "/v1/conversions?label=batch:linked&limit=2"
    while path:
        answer = client.get(path)
        seen += [item["id"] for item in answer.json()["items"]]
        path = answer.links["next"]["url"] if "next" in answer.links else None
    assert len(set(seen)) == 3
    assert client.get("/v1/architectures?limit=1").links["next"]["url"].startswith("/v1/architectures?")


def test_checkpoints_are_listed_and_labelled(client):
    wait = {"Prefer": "wait=0"}
    query = {"name": "epoch 90", "label": ["team:vision", "epoch:90"]}
    made = client.put("/v1/checkpoints", content=weights(b"listed"), params=query, headers=wait).json()
    assert (made["name"], made["labels"]) == ("epoch 90", {"team": "vision", "epoch": "90"})
    again = client.put("/v1/checkpoints", content=weights(b"listed"), headers=wait).json()
    assert again["labels"] == made["labels"]
    other = client.put("/v1/checkpoints?label=team:speech", content=weights(b"other"), headers=wait).json()
    listed = client.get("/v1/checkpoints", params={"label": "team:vision"}).json()
    assert [(item["id"], item["name"], item["usable"]) for item in listed["items"]] == [(made["id"], "epoch 90", True)]
    assert listed["total"] == 1
    first = client.get("/v1/checkpoints", params={"limit": 1})
    second = client.get(first.links["next"]["url"]).json()
    assert first.json()["items"][0]["id"] == other["id"]
    assert second["items"][0]["id"] == made["id"]
    later = client.get("/v1/checkpoints", params={"created_after": made["created_at"]}).json()["items"]
    assert other["id"] in [item["id"] for item in later]
    assert made["id"] not in [item["id"] for item in later]
    assert client.get("/v1/checkpoints?cursor=nonsense").status_code == 422


def test_a_finished_conversion_tells_when_its_files_expire(client, backstage):
    path = submit(client).headers["location"]
    assert client.get(path).json()["expires_at"] is None
    backstage.finish(path.rsplit("/", 1)[-1])
    told = client.get(path).json()
    assert told["finished_at"] < told["expires_at"]
    assert told["expired_at"] is None


def test_the_resource_tells_the_artifacts_digest_and_its_parity(client, backstage):
    path = submit(client).headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1])
    told = client.get(path).json()
    assert len(told["artifact"]["sha256"]) == 64
    assert set(told["parity"]) == {"probe", "output", "error", "gate", "ratio"}
    assert told["parity"]["ratio"] <= 1
