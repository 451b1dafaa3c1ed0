"""Every way to be refused is a problem document."""

import json
import subprocess
import sys

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from app.api.errors_table import problem_kinds
from app.api.observe import Observe
from app.api.problem_examples import CASES
from app.domain.errors import LISTED, KeyMismatch


def assert_is_problem(answer: httpx.Response, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "code", "instance", "request_id"} <= set(problem)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


def test_every_code_has_an_example_that_is_a_problem_of_it():
    """In an interpreter that has loaded the api alone: commands have errors that no client is told."""
    codes = (
        "import app.main, app.api.server; from app.domain.errors import RecastError as E; from json import dumps\n"
        "w = [E]\nfor k in w: w += k.__subclasses__()\n"
        "print(dumps(sorted({k.code for k in w if k is not E and 'code' in vars(k)})))"
    )
    told = subprocess.run([sys.executable, "-c", codes], capture_output=True, text=True, check=True).stdout
    kinds = problem_kinds()
    assert set(json.loads(told)) == set(CASES) == set(kinds)
    for code, kind in kinds.items():
        shown = (kind.example["code"], kind.example["status"], kind.example["title"], kind.example["hint"])
        assert shown == (code, kind.status, kind.title, kind.hint)


def test_unknown_paths_and_methods(client):
    assert_is_problem(client.get("/v1/nothing"), 404, "not_found")
    assert_is_problem(client.get("/v1/conversions/"), 404, "not_found")
    answer = client.patch("/v1/checkpoints")
    assert_is_problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/v1/conversions?limit=0", "limit"),
        ("/v1/conversions?limit=abc", "limit"),
        ("/v1/conversions?status=done", "status"),
        ("/v1/conversions?created_after=yesterday", "created_after"),
        ("/v1/conversions?cursor=nonsense", "cursor"),
        ("/v1/architectures?query=" + "x" * 5000, "query"),
    ],
)
def test_parameters_that_are_not_valid_are_named(client, path, place):
    problem = assert_is_problem(client.get(path), 422, "invalid_request")
    assert place in problem["errors"][0]["location"]
    assert len(problem["errors"][0]["value"]) <= 200


def test_a_clients_request_id_is_kept_and_a_hostile_one_is_not(client):
    assert client.get("/version", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for hostile in ("a b", "x" * 500, "<script>"):
        kept = client.get("/version", headers={"X-Request-ID": hostile}).headers["x-request-id"]
        assert kept.startswith("req_")


def test_an_unexpected_exception_says_nothing_of_its_text():
    async def broken(_):
        raise ValueError("a secret")

    app = Starlette(routes=[Route("/broken", broken)])
    app.add_middleware(Observe)
    answer = TestClient(app, raise_server_exceptions=False).get("/broken")
    problem = assert_is_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert problem["instance"] == "/broken"


def test_every_code_is_explained_under_its_type(client):
    listed = client.get("/v1/problems").json()
    assert [kind["code"] for kind in listed] == sorted(problem_kinds())
    for kind in listed:
        assert client.get(kind["type"]).json() == kind


def test_long_lists_are_cut_and_counted():
    problem = KeyMismatch("many", missing_keys=[str(number) for number in range(LISTED + 30)]).problem()
    assert len(problem.extra["missing_keys"]) == LISTED
    assert problem.extra["missing_keys_count"] == LISTED + 30


def test_keys_are_counted_however_few():
    problem = KeyMismatch("few", missing_keys=["a"], unexpected_keys=[], shape_mismatches=(), nearest=["b"]).problem()
    assert problem.extra == {
        "missing_keys": ["a"],
        "missing_keys_count": 1,
        "unexpected_keys": [],
        "unexpected_keys_count": 0,
        "shape_mismatches": [],
        "shape_mismatches_count": 0,
        "nearest": ["b"],
    }
