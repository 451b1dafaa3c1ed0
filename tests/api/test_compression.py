"""Answers for clients that take gzip."""

import httpx

from tests.api.server import Backstage, submit

GZIP = {"Accept-Encoding": "gzip"}
IDENTITY = {"Accept-Encoding": "identity"}


def test_json_is_smaller_for_clients_that_take_gzip_and_the_same(client: httpx.Client):
    plain = client.get("/v1/problems", headers=IDENTITY)
    small = client.get("/v1/problems", headers=GZIP)
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < len(plain.content) / 3
    assert "accept-encoding" in small.headers["vary"].lower()
    assert small.json() == plain.json()


def test_files_are_sent_as_they_are(client: httpx.Client, backstage: Backstage):
    conversion = submit(client).json()
    backstage.finish(conversion["id"])
    for path in ("artifact", "bundle"):
        answer = client.get(f"/v1/conversions/{conversion['id']}/{path}", headers=GZIP)
        assert "content-encoding" not in answer.headers
        assert answer.headers["accept-ranges"] == "bytes"


def test_a_compressed_report_has_no_digest_of_another_form_and_polls_by_its_tag(
    client: httpx.Client, backstage: Backstage
):
    conversion = submit(client).json()
    backstage.finish(conversion["id"])
    path = f"/v1/conversions/{conversion['id']}/report"
    small = client.get(path, headers=GZIP)
    assert small.headers["content-encoding"] == "gzip"
    assert "repr-digest" not in small.headers
    assert small.headers["etag"].startswith("W/")
    assert client.get(path, headers={**GZIP, "If-None-Match": small.headers["etag"]}).status_code == 304
