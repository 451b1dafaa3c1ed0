"""Signing in with a key, and what a cookie may not be used for."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from app.settings import Settings
from tests.api.server import Backstage, serving
from tests.cli.keys import make_key

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def guarded(backstage: Backstage) -> Iterator[str]:
    """Address of an api that wants a key."""
    settings = Settings(data_dir=backstage.settings.data_dir, require_keys=True)
    with serving(settings, backstage.database_url) as url:
        yield url


@pytest.fixture
def signed_in(guarded: str, backstage: Backstage) -> Iterator[httpx.Client]:
    """A browser's state after signing in with an admin's key, as far as cookies go."""
    secret = make_key(backstage.database_url, "default", ("read", "convert", "admin"))
    with httpx.Client(base_url=guarded, timeout=60) as client:
        answer = client.post("/sign-in", data={"key": secret, "next": "/conversions?state=failed"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/conversions?state=failed")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert secret not in cookie
        yield client


def test_a_person_signs_in_makes_a_key_and_signs_out(browser: Browser, guarded: str, backstage: Backstage):
    secret = make_key(backstage.database_url, "default", ("read", "convert", "admin"))
    context = browser.new_context(base_url=guarded)
    try:
        page = context.new_page()
        page.goto("/administration")
        assert page.url.endswith("/sign-in?next=/administration")
        page.get_by_label("Key").fill("rk_wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("The key is not valid")
        page.get_by_label("Key").fill(secret)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Administration")).to_be_visible()
        page.get_by_label("Name of a new key").fill("deployment")
        page.get_by_role("button", name="Make a key").click()
        expect(page.locator("#secret")).to_contain_text("rk_")
        page.reload()
        expect(page.get_by_text("deployment")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.goto("/conversions")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    finally:
        context.close()


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
     {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"}],
)  # fmt: skip
def test_a_cookie_changes_nothing_for_pages_of_others(signed_in: httpx.Client, headers: dict[str, str]):
    answer = signed_in.post("/v1/keys", json={"name": "stolen", "scopes": ["read"]}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_refused")
    own = {"Sec-Fetch-Site": "same-origin"}
    assert signed_in.post("/v1/keys", json={"name": "own", "scopes": ["read"]}, headers=own).status_code == 201


def test_a_sign_in_ends_with_its_key(signed_in: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.api.principals.REMEMBERED_SECONDS", 0.0)
    own = {"Sec-Fetch-Site": "same-origin"}
    assert signed_in.get("/conversions", headers=HTML).status_code == 200
    for key in signed_in.get("/v1/keys").json()["items"]:
        signed_in.delete(f"/v1/keys/{key['id']}", headers=own)
    answer = signed_in.get("/conversions", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/conversions")


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1"])
def test_nobody_is_led_elsewhere(guarded: str, backstage: Backstage, elsewhere: str):
    secret = make_key(backstage.database_url, "default", ("read",))
    answer = httpx.post(f"{guarded}/sign-in", data={"key": secret, "next": elsewhere})
    assert answer.headers["location"] == "/"


def test_pages_of_the_service_are_never_asked_for_a_password_by_the_browser(guarded: str):
    answer = httpx.get(f"{guarded}/v1/conversions", headers={"Sec-Fetch-Mode": "cors"})
    assert answer.headers["www-authenticate"] == 'Bearer realm="recast"'
