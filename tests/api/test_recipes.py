"""Recipes as clients see them: registered, versioned, listed, deleted, each project's own. Workers build them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.database import recipes
from app.database.session import Database
from app.database.tables import Recipe
from app.domain.architecture import OutputSpec
from app.domain.conversion import State
from app.domain.errors import InvalidRecipe, Problem
from app.domain.recipe import CheckedRecipe, RecipeRequest, recipe_of
from app.settings import Settings
from tests.api.server import Backstage, description, serving, weights
from tests.cli.keys import make_key, make_project

BASE = "torchvision/resnet18"
HEAD = {"fc": [{"Dropout": {"p": 0.2}}, {"Linear": {"out_features": 37}}]}


def register(client: httpx.Client, name: str, *, wait: int = 0, **members: Any) -> httpx.Response:
    asked = {"name": name, "base": BASE, "replace": HEAD, **members}
    return client.post("/v1/architectures", json=asked, headers={"Prefer": f"wait={wait}"})


def build(backstage: Backstage, problem: Problem | None = None) -> None:
    """What a worker does with every recipe that waits."""

    async def record(database: Database, _: Any) -> None:
        async with database.transaction() as session:
            for row in await session.scalars(select(Recipe).where(Recipe.queue_job_id.is_not(None))):
                recipe = recipe_of(RecipeRequest.model_validate_json(row.asked))
                checked = CheckedRecipe(recipe=recipe.told(), digest=row.digest, outputs=(OutputSpec(name="logits"),))
                shown = description(row.name).model_copy(update={"recipe": row.digest})
                await recipes.record(session, row, problem or checked, None if problem else shown)

    backstage._with_database(record)


def registered(client: httpx.Client, backstage: Backstage, name: str, **members: Any) -> dict[str, Any]:
    assert register(client, name, **members).status_code == 202
    build(backstage)
    answer = register(client, name, **members)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def convert(client: httpx.Client, architecture: str, content: bytes) -> httpx.Response:
    sent = client.post("/v1/checkpoints", content=weights(content), headers={"Prefer": "wait=0"}).json()["sha256"]
    asked = {"architecture": architecture, "target": "onnx", "checkpoint": sent}
    return client.post("/v1/conversions", json=asked)


def test_a_recipe_is_listed_and_described_like_any_entry_once_it_was_built(client, backstage):
    waiting = register(client, "own/listed", summary="Crops of fields")
    assert (waiting.status_code, waiting.json()["state"]) == (202, "checking")
    assert waiting.headers["retry-after"]
    assert client.get("/v1/architectures/own/listed").status_code == 404
    build(backstage)
    told = register(client, "own/listed", summary="Crops of fields").json()
    assert (told["name"], told["made_of"]["base"], told["versions"]) == ("own/listed", BASE, [told["recipe"]])
    assert client.get("/v1/architectures/own/listed").json() == told
    listed = client.get("/v1/architectures", params={"query": "own/listed"}).json()
    assert [entry["name"] for entry in listed["items"]] == ["own/listed"]


def test_a_name_means_its_newest_version_and_each_version_stays(client, backstage):
    first = registered(client, backstage, "own/versions")["recipe"]
    before = convert(client, "own/versions", b"first").json()
    second = registered(client, backstage, "own/versions", replace={"fc": []})["recipe"]
    assert second != first
    assert client.get("/v1/architectures/own/versions").json()["versions"] == [second, first]
    pinned = convert(client, f"own/versions@{first[:12]}", b"second").json()
    newest = convert(client, "own/versions", b"third").json()
    assert {one["architecture"] for one in (before, pinned, newest)} == {"own/versions"}
    assert [one["recipe"] for one in (before, pinned, newest)] == [first, first, second]
    assert client.get(f"/v1/architectures/own/versions@{first[:12]}").json()["recipe"] == first
    assert register(client, "own/versions").json()["versions"] == [first, second]  # asked for again
    refused = convert(client, "own/versions@00000000", b"fourth")
    assert refused.json()["code"] == "unknown_architecture"


def test_the_same_request_after_another_version_is_another_conversion(client, backstage):
    registered(client, backstage, "own/twins")
    first = convert(client, "own/twins", b"twin").json()
    backstage.finish(first["id"])
    assert convert(client, "own/twins", b"twin").json()["id"] == first["id"]
    registered(client, backstage, "own/twins", replace={"fc": []})
    assert convert(client, "own/twins", b"twin").json()["id"] != first["id"]


def test_what_a_conversion_needs_is_not_deleted(client, backstage):
    digest = registered(client, backstage, "own/deleted")["recipe"]
    conversion = convert(client, "own/deleted", b"deleted").json()
    refused = client.delete("/v1/architectures/own/deleted")
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    backstage.finish(conversion["id"], state=State.failed, verdict=None, problem=InvalidRecipe("x").problem())
    assert client.delete(f"/v1/architectures/own/deleted@{digest[:8]}").status_code == 204
    assert client.get("/v1/architectures/own/deleted").status_code == 404
    assert client.get(f"/v1/conversions/{conversion['id']}").json()["recipe"] == digest
    again = client.post(f"/v1/conversions/{conversion['id']}/retry")
    assert again.json()["code"] == "unknown_architecture"
    for name in ("own/deleted", BASE, "own/nothing"):
        assert client.delete(f"/v1/architectures/{name}").json()["code"] == "unknown_architecture"


def test_what_cannot_be_built_is_told_and_is_no_version(client, backstage):
    register(client, "own/broken", replace={"fcc": []})
    build(backstage, InvalidRecipe("The base has no part 'fcc'.", hint="Did you mean fc?").problem())
    answer = register(client, "own/broken", replace={"fcc": []})
    assert answer.status_code == 202  # asked for anew
    build(backstage)
    assert register(client, "own/broken", replace={"fcc": []}).status_code == 200


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"replace": {"fc": {"Liner": {}}}}, "no layer"),
        ({"replace": {"fc": {"Linear": {"out_feature": 3}}}}, "no option 'out_feature'"),
        ({"replace": {"fc": {"Linear": {"out_features": 2**21}}}}, "out_features"),
        ({"replace": {"fc": {"Linear": {}}}}, "out_features"),
        ({"replace": {"fc": {"Lambda": {"code": "print(1)"}}}}, "no layer"),
        ({"replace": {"__class__.__init__..": []}}, "no path"),
        ({"replace": {"fc": [[[[[[[[[["ReLU"]]]]]]]]]]}}, "within each other"),
        ({"replace": {"fc": ["ReLU"] * 300}}, "200 layers"),
        ({"replace": {"layer4": [], "layer4.1": []}}, "within another"),
        ({"replace": {}}, "changes nothing"),
        ({"base": "torchvision/resnet19"}, "No architecture"),
        ({"options": {"classes": 3}}, "no option"),
        ({"name": "torchvision/mine"}, "not a name"),
        ({"name": "own/versions@1"}, "not a name"),
        ({"heads": {"a": {"layers": [], "into": "x"}}}, "layers and input"),
        ({"heads": {"a": []}, "take": {"a": "fc"}}, "is a head and"),
        ({"outputs": ["a", "a"]}, "one name"),
        ({"inputs": {"input": ["batch", 0]}}, "sizes"),
        ({"unknown": 1}, "unknown"),
        ({"children": False}, "children"),
        ({"children": 1.0}, "children"),
        ({"inputs": {"input": [True, 3, 8, 8]}}, "inputs"),
    ],
)
def test_what_is_no_recipe_is_refused_at_the_place(client, members, said):
    answer = register(client, members.pop("name", "own/refused"), **members)
    assert 400 <= answer.status_code < 500
    assert said in answer.text


@pytest.fixture(scope="module")
def of_projects(backstage: Backstage) -> Iterator[list[httpx.Client]]:
    settings = Settings(data_dir=backstage.settings.data_dir, require_keys=True)
    projects = [make_project(backstage.database_url, name) for name in ("recipes-a", "recipes-b")]
    secrets = [make_key(backstage.database_url, project, ("read", "convert")) for project in projects]
    with serving(settings, backstage.database_url) as url:
        headers = [{"Authorization": f"Bearer {secret}"} for secret in secrets]
        clients = [httpx.Client(base_url=url, timeout=60, headers=one) for one in headers]
        yield clients
        for client in clients:
            client.close()


def test_recipes_are_the_projects_own(of_projects, backstage):
    owner, stranger = of_projects
    registered(owner, backstage, "own/private")
    for answer in (
        stranger.get("/v1/architectures/own/private"),
        convert(stranger, "own/private", b"stranger"),
        stranger.delete("/v1/architectures/own/private"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_architecture")
    assert stranger.get("/v1/architectures", params={"query": "own/private"}).json()["total"] == 0
    other = registered(stranger, backstage, "own/private", replace={"fc": []})
    assert other["versions"] == [other["recipe"]]
    assert owner.get("/v1/architectures/own/private").json()["made_of"]["replace"] == HEAD
