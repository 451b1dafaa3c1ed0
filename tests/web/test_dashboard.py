"""A dashboard on another origin, in a real browser: it sends weights, follows the conversion, fetches the artifact."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest
from playwright.sync_api import Browser

from app.settings import Settings
from tests.api.server import Backstage, serving, weights

PAGE = b"""<!doctype html><title>dashboard</title><script>
async function run(service, bytes) {
  const form = new FormData();
  form.append("architecture", "torchvision/resnet18");
  form.append("target", "onnx");
  form.append("file", new Blob([new Uint8Array(bytes)]), "weights.pth");
  const headers = {"Idempotency-Key": crypto.randomUUID()};
  const asked = await fetch(service + "/v1/conversions", {method: "POST", body: form, headers});
  const conversion = await asked.json();
  window.made = {id: conversion.id, location: asked.headers.get("location")};
  const states = [];
  await new Promise((resolve, reject) => {
    const events = new EventSource(service + conversion.links.events);
    events.onerror = () => reject(new Error("the events broke off"));
    events.addEventListener("state", event => {
      const told = JSON.parse(event.data);
      states.push(told.state);
      window.states = states;
      if (told.state === "succeeded") { events.close(); resolve(); }
    });
  });
  const answer = await fetch(service + window.made.location);
  const done = await answer.json();
  const artifact = await (await fetch(service + done.links.artifact)).arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", artifact));
  const hex = Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join("");
  window.fetched = {sha256: hex, told: done.artifact.sha256, etag: answer.headers.get("etag"), verdict: done.verdict};
}
</script>"""


class Dashboard(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def shared(backstage: Backstage, dashboard: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service with the dashboard's origin admitted."""
    settings = Settings(data_dir=backstage.settings.data_dir, cors_origins=[dashboard])
    with serving(settings, backstage.database_url) as address:
        yield address


def test_a_dashboard_of_another_origin_submits_follows_and_downloads(
    browser: Browser, dashboard: str, shared: str, backstage: Backstage
):
    page = browser.new_context().new_page()
    page.goto(dashboard)
    page.evaluate(
        "([service, bytes]) => { run(service, bytes).catch(error => { window.failed = String(error); }); }",
        [shared, list(weights(uuid4().bytes))],
    )
    made = page.wait_for_function("window.made || window.failed && {failed: window.failed}").json_value()
    assert made["location"] == f"/v1/conversions/{made['id']}", made
    backstage.finish(made["id"])
    fetched = page.wait_for_function("window.fetched || window.failed && {failed: window.failed}").json_value()
    assert fetched["sha256"] == fetched["told"], fetched
    assert fetched["verdict"] == "pass"
    assert fetched["etag"]
    assert page.evaluate("window.states")[-1] == "succeeded"
    page.context.close()


def test_a_page_of_an_origin_that_is_not_named_gets_nothing(browser: Browser, dashboard: str, url: str):
    page = browser.new_context().new_page()
    page.goto(dashboard)
    page.evaluate("service => { run(service, [1]).catch(error => { window.failed = String(error); }); }", url)
    assert page.wait_for_function("window.failed || window.made").json_value() == "TypeError: Failed to fetch"
    page.context.close()
