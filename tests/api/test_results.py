"""Downloading what a conversion produced."""

import base64
import hashlib
import io
import json
import zipfile

import jsonschema
import pytest

from app.domain.conversion import State
from app.domain.errors import ParityFailed
from app.domain.report import Verdict
from tests.api.server import submit
from tests.delivery.reports import failed_report, report

CONTENT = b"0123456789" * 10_000


@pytest.fixture(scope="module")
def finished(url, backstage):
    """Path of a conversion whose artifact is CONTENT."""
    import httpx

    with httpx.Client(base_url=url) as client:
        path = submit(client).headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1], artifact=CONTENT)
    return path


def test_the_artifact_carries_its_digest_and_name(client, finished):
    answer = client.get(f"{finished}/artifact")
    digest = hashlib.sha256(CONTENT)
    assert answer.content == CONTENT
    assert answer.headers["etag"] == f'"{digest.hexdigest()}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert answer.headers["content-disposition"] == 'attachment; filename="torchvision-resnet18.onnx"'
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-recast-verdict"] == "pass"
    head = client.head(f"{finished}/artifact")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize("what", ["artifact", "bundle"])
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        ("bytes=99990-", 99_990, None),
        ("bytes=-7", -7, None),
        ("bytes=0-999999999", 0, None),
    ],
)
def test_ranges(client, finished, what, asked, first, last):
    whole = client.get(f"{finished}/{what}").content
    answer = client.get(f"{finished}/{what}", headers={"Range": asked})
    end = len(whole) if last is None else last + 1
    start = first if first >= 0 else len(whole) + first
    assert answer.status_code == 206
    assert answer.content == whole[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(whole)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "nonsense",
    ["bytes=5-1", "bytes=", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=" + ",".join(f"{n}-{n}" for n in range(1000)),
     "bytes=" + "9" * 5000 + "-", "bytes=１-２"],
)  # fmt: skip
def test_ranges_that_make_no_sense_are_ignored(client, finished, nonsense):
    answer = client.get(f"{finished}/artifact", headers={"Range": nonsense.encode()})
    assert answer.status_code == 200
    assert answer.content == CONTENT


@pytest.mark.parametrize("beyond", ["bytes=100000-", "bytes=500000-500001", "bytes=-0"])
def test_ranges_beyond_the_end_are_not_satisfiable(client, finished, beyond):
    answer = client.get(f"{finished}/artifact", headers={"Range": beyond})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_a_download_resumes_only_when_the_file_is_the_same(client, finished):
    etag = client.head(f"{finished}/artifact").headers["etag"]
    resumed = client.get(f"{finished}/artifact", headers={"Range": "bytes=10-", "If-Range": etag})
    assert resumed.status_code == 206
    started_again = client.get(f"{finished}/artifact", headers={"Range": "bytes=10-", "If-Range": '"other"'})
    assert (started_again.status_code, started_again.content) == (200, CONTENT)
    assert client.get(f"{finished}/artifact", headers={"If-None-Match": etag}).status_code == 304


def test_the_bundle_is_whole_and_reproducible(client, finished):
    answer = client.get(f"{finished}/bundle")
    assert answer.headers["content-type"] == "application/zip"
    assert client.get(f"{finished}/bundle").content == answer.content
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert set(archive.namelist()) == {
        "torchvision-resnet18.onnx",
        "report.json",
        "report.html",
        "golden.npz",
        "check.py",
        "manifest.json",
    }
    manifest = json.loads(archive.read("manifest.json"))
    for member in manifest["members"]:
        content = archive.read(member["name"])
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (member["sha256"], member["bytes"])
    assert {member["role"] for member in manifest["members"]} >= {"artifact", "report", "golden", "selfcheck"}


def test_the_report_is_json_for_programs_and_a_page_for_people(client, finished):
    answer = client.get(f"{finished}/report", headers={"Accept": "*/*"})
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document["verification"]["verdict"] == report().verification.verdict
    jsonschema.validate(document, client.get("/v1/schemas/report").json())
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    page = client.get(f"{finished}/report", headers=browser)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
    assert page.headers["vary"].split(", ")[0] == "Accept"
    assert page.headers["content-disposition"] == 'inline; filename="report.html"'
    assert answer.headers["content-disposition"] == 'inline; filename="report.json"'
    assert client.get(f"{finished}/report", headers={"Accept": "text/html;q=0.1,application/json"}).json()


def test_what_is_not_ready_says_where_the_conversion_stands(client):
    path = submit(client).headers["location"]
    for what in ("artifact", "bundle", "report"):
        answer = client.get(f"{path}/{what}")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")
        assert answer.headers["retry-after"] == "1"
        assert "queued" in answer.json()["detail"]


def test_an_artifact_that_failed_verification_is_quarantined(client, backstage):
    path = submit(client).headers["location"]
    done = failed_report()
    backstage.finish(
        path.rsplit("/", 1)[-1],
        state=State.failed,
        verdict=Verdict.fail,
        problem=ParityFailed("It departs.", stage="verify").problem(),
        artifact=CONTENT,
        finished_report=done,
    )
    conversion = client.get(path).json()
    assert conversion["artifact"]["verified"] is False
    for what in ("artifact", "bundle"):
        refused = client.get(f"{path}/{what}")
        assert (refused.status_code, refused.json()["code"]) == (409, "unverified_artifact")
        given = client.get(f"{path}/{what}", params={"unverified": "true"})
        assert given.status_code == 200
        assert given.headers["x-recast-verdict"] == "fail"
    document = client.get(f"{path}/report").json()
    assert document["problem"]["code"] == "parity_failed"
    jsonschema.validate(document, client.get("/v1/schemas/report").json())


def test_a_conversion_that_never_had_an_artifact_says_why(client, backstage):
    path = submit(client).headers["location"]
    problem = ParityFailed("No luck.", stage="export", hint="Try again.").problem()
    backstage.finish(path.rsplit("/", 1)[-1], state=State.failed, verdict=None, problem=problem, artifact=None)
    answer = client.get(f"{path}/artifact")
    body = answer.json()
    assert (answer.status_code, body["code"], body["stage"]) == (409, "not_ready", "export")
    assert body["problem"]["code"] == "parity_failed"
    assert client.get(f"{path}/report").status_code == 409
