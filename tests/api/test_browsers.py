"""A stranger's page can neither write nor read through a person's browser, and no answer may do more than it must."""

from collections.abc import Iterator

import httpx
import pytest

from app.api.browsers import HEADERS, allowed_hosts
from app.settings import Settings
from tests.api.server import Backstage, serving, submit

STRANGER = "https://evil.example"
DASHBOARD = "https://dashboard.example.com"


@pytest.fixture
def shared(backstage: Backstage) -> Iterator[httpx.Client]:
    """An api whose use from the dashboard's pages is admitted."""
    settings = Settings(data_dir=backstage.settings.data_dir, cors_origins=(DASHBOARD,))
    with serving(settings, backstage.database_url) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": STRANGER},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": STRANGER, "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_pages_of_other_origins_write_nothing(client, headers):
    path = submit(client).headers["location"]
    for method, where in (
        ("POST", f"{path}/cancel"),
        ("DELETE", path),
        ("POST", "/v1/conversions"),
        ("PUT", "/v1/checkpoints"),
    ):
        answer = client.request(method, where, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_refused")
    assert client.get(path).json()["state"] == "queued"


def test_own_pages_and_programs_write(client, url):
    for headers in ({}, {"Origin": url}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        path = submit(client).headers["location"]
        assert client.post(f"{path}/cancel", headers=headers).status_code == 202


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "x", "[::2]", "["])
def test_on_loopback_only_names_of_this_machine_are_answered(client, host):
    answer = client.get("/v1/conversions", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:8000", "[::1]:8000", "localhost."])
def test_names_of_this_machine_are_answered(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_hosts_can_be_named_in_the_settings(backstage):
    settings = Settings(data_dir=backstage.settings.data_dir, allowed_hosts=("recast.example.com",))
    with serving_under("recast.example.com", settings, backstage) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/healthz", headers={"Host": "other.example.com"}).status_code == 421


def test_beyond_loopback_without_keys_no_name_is_answered_but_those_of_the_settings(backstage):
    """A page of evil.example whose name is made to point here would read and write all, and make itself keys."""
    open_to_all = {"data_dir": backstage.settings.data_dir, "host": "0.0.0.0", "allow_unauthenticated": True}
    admitted = ("localhost", "127.0.0.1:8000", "[::1]:8000", "192.168.1.7:8000", "[fd00::7]")
    for settings, more in (
        (Settings(**open_to_all), ()),
        (Settings(**open_to_all, oidc_issuer="https://issuer.example", oidc_audience="recast"), ()),
        (Settings(**open_to_all, allowed_hosts=("Recast.example.com",)), ("recast.example.com:8000",)),
    ):
        hosts = allowed_hosts(settings)
        for host in (*(admitted[:3] if more else admitted), *more):
            assert hosts.admits(host), host
        for host in (
            "evil.example",
            "evil.example:8000",
            "0x7f.1",
            "",
            "1.2.3.4.evil.example",
            "evil.example@localhost",
        ):
            assert not hosts.admits(host), host
    assert allowed_hosts(Settings(host="0.0.0.0")).admits("any.example")  # who asks must have a key there
    with serving(Settings(**open_to_all), backstage.database_url) as url:
        refused = httpx.post(f"{url}/v1/keys", json={"name": "x"}, headers={"Host": "evil.example"})
        assert (refused.status_code, refused.json()["code"]) == (421, "host_not_allowed")
        assert httpx.get(f"{url}/readyz", headers={"Host": "10.0.0.7:8000"}).status_code != 421


class serving_under:
    """An api that is asked under another name than its address."""

    def __init__(self, name: str, settings: Settings, backstage: Backstage) -> None:
        self._name, self._context = name, serving(settings, backstage.database_url, host=name)

    def __enter__(self) -> httpx.Client:
        self._client = httpx.Client(base_url=self._context.__enter__(), headers={"Host": self._name})
        return self._client

    def __exit__(self, *details: object) -> None:
        self._client.close()
        self._context.__exit__(*details)


def test_every_answer_carries_the_headers(client, backstage):
    conversion = submit(client).json()
    backstage.finish(conversion["id"])
    made = conversion["links"]["self"]
    paths = ["/v1/conversions", "/v1/nothing", "/healthz", "/metrics", "/openapi.json", "/docs", made, f"{made}/bundle"]
    paths += [f"{made}/artifact", f"{made}/report", f"{made}/events", "/docs/assets/swagger-ui.css"]
    paths += ["/", "/conversions", "/nothing", "/static/start.js", "/static/nothing.js", "/static/../app/main.py"]
    asked = [("GET", path, {}) for path in paths]
    asked += [("HEAD", made, {}), ("OPTIONS", made, {}), ("TRACE", made, {}), ("PATCH", "/healthz", {})]
    asked += [("GET", "/", {"Host": "evil.example"}), ("POST", made, {"Origin": STRANGER})]
    asked += [("POST", "/v1/conversions", {"Content-Type": "text/html"}), ("GET", "/%ff%00", {})]
    asked += [("GET", f"{made}/artifact", {"Range": "bytes=99999999-"}), ("GET", made, {"Authorization": "Bearer x"})]
    for method, path, told in asked:
        headers = client.request(method, path, headers=told).headers
        for name, value in HEADERS.items():
            assert name in headers, (method, path, name)
            if name not in ("Content-Security-Policy", "Cache-Control"):
                assert headers[name] == value
        assert "frame-ancestors 'none'" in headers["content-security-policy"], (method, path)
    page = client.get(f"{made}/report", headers={"Accept": "text/html"})
    assert "style-src 'unsafe-inline'" in page.headers["content-security-policy"]
    assert client.get(made).headers["cache-control"] == "no-store"


def test_a_dashboard_of_an_admitted_origin_reads_and_writes(shared):
    asked = {"Origin": DASHBOARD, "Access-Control-Request-Method": "POST"}
    preflight = shared.options(
        "/v1/conversions", headers={**asked, "Access-Control-Request-Headers": "authorization,prefer,idempotency-key"}
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == DASHBOARD
    made = shared.get("/v1/conversions", headers={"Origin": DASHBOARD})
    assert made.headers["access-control-allow-origin"] == DASHBOARD
    assert "location" in made.headers["access-control-expose-headers"].lower()
    answer = shared.post("/v1/conversions", json={}, headers={"Origin": DASHBOARD})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_others_get_no_leave(shared, client):
    asked = {"Origin": STRANGER, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in shared.options("/v1/conversions", headers=asked).headers
    assert "access-control-allow-origin" not in shared.get("/v1/conversions", headers={"Origin": STRANGER}).headers
    assert "access-control-allow-origin" not in client.get("/v1/conversions", headers={"Origin": DASHBOARD}).headers
