"""The graph view: a viewer that is made to work without any network, and for longer than half a year."""

import time

import httpx
from playwright.sync_api import Browser, Page

from tests.api.server import Backstage, submit
from tests.web.artifacts import onnx_file


def test_the_graph_is_shown_a_year_from_now_with_no_request_that_leaves(
    browser: Browser, url: str, client: httpx.Client, backstage: Backstage
):
    conversion = submit(client).json()["id"]
    backstage.finish(conversion, artifact=onnx_file())
    context = browser.new_context(base_url=url)
    try:
        page = context.new_page()
        page.clock.install(time="2028-01-01T00:00:00Z")
        foreign: list[str] = []
        context.route("**", lambda route: _only_here(route, url, foreign))
        page.on("console", lambda message: foreign.append(message.text) if message.type == "error" else None)
        page.goto(f"/conversions/{conversion}")
        page.get_by_role("link", name="Graph").click()
        assert "MatMul" in _shown_when(page, "MatMul")
        assert foreign == []
    finally:
        context.close()


def test_the_viewer_shows_nothing_but_graphs_of_conversions(client: httpx.Client):
    for query in ("", "?url=https://example.org/a.onnx&identifier=a.onnx", "?url=/v1/keys&identifier=a.onnx"):
        assert client.get(f"/graph/{query}").status_code == 422


def _only_here(route, url: str, foreign: list[str]) -> None:
    if route.request.url.startswith(url):
        route.continue_()
    else:
        foreign.append(route.request.url)
        route.abort()


def _shown_when(page: Page, awaited: str) -> str:
    """The page once it holds that text. Netron takes eval away, which Playwright's own waiting uses."""
    session = page.context.new_cdp_session(page)
    shown = ""
    deadline = time.monotonic() + 30
    while awaited not in shown and time.monotonic() < deadline:
        page.wait_for_timeout(100)
        root = session.send("DOM.getDocument")["root"]["nodeId"]
        shown = session.send("DOM.getOuterHTML", {"nodeId": root})["outerHTML"]
    return str(shown)
