"""How clients are told that an operation will go."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from fastapi import FastAPI, HTTPException
from starlette.testclient import TestClient

from app.api.readable import ReadableRouter
from app.api.retirement import Retirements, retires

SINCE, SUNSET = datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def client() -> TestClient:
    router = ReadableRouter()

    @router.get("/old/{name}")
    @retires(since=SINCE, sunset=SUNSET, instead="/guide/compatibility")
    def old(name: str) -> str:
        if name == "missing":
            raise HTTPException(404)
        return name

    @router.get("/new")
    def new() -> str:
        return "new"

    app = FastAPI()
    app.include_router(router)
    app.add_middleware(Retirements)
    return TestClient(app, raise_server_exceptions=False)


def test_every_answer_of_an_operation_that_goes_says_since_when_and_when(client: TestClient):
    for path in ("/old/one", "/old/missing"):
        headers = client.get(path).headers
        assert headers["deprecation"] == f"@{int(SINCE.timestamp())}"
        assert parsedate_to_datetime(headers["sunset"]) == SUNSET
        assert headers["link"] == '</guide/compatibility>; rel="deprecation"; type="text/html"'
    assert "sunset" not in client.get("/new").headers


def test_the_document_says_so_too(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    assert paths["/old/{name}"]["get"]["deprecated"] is True
    assert "deprecated" not in paths["/new"]["get"]


def test_a_year_lies_between_the_notice_and_the_end():
    with pytest.raises(ValueError, match="365 days"):
        retires(since=SINCE, sunset=datetime(2027, 12, 1, tzinfo=UTC), instead="/")
