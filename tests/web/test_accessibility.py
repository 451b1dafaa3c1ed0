"""axe-core finds nothing on any page, in light and dark, on a screen and on a phone."""

import html
import re
from importlib.resources import files
from typing import Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, Page

from app.domain.conversion import State
from app.domain.errors import Problem
from app.domain.report import Verdict
from tests.api.server import submit
from tests.delivery.reports import failed_report
from tests.web.artifacts import onnx_file

SAME_KIND = re.compile(r"/problems/")
"""Many of a kind, which test_problems looks at."""
AXE = files("axe_playwright_python").joinpath("axe.min.js")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def paths(url, backstage) -> dict[str, str]:
    """Every kind of page, by name."""
    import httpx

    with httpx.Client(base_url=url, timeout=60) as client:
        passed, failed, refused, running = (submit(client).json()["id"] for _ in range(4))
        backstage.finish(passed, artifact=onnx_file())
        wrong = Problem(code="parity_failed", title="It differs", status=422, detail="It computes something else.")
        backstage.finish(
            failed, state=State.failed, verdict=Verdict.fail, problem=wrong, finished_report=failed_report()
        )
        misfit = Problem(
            code="key_mismatch", title="No fit", status=422, detail="A key is missing.", extra={"missing_keys": ["a"]}
        )
        backstage.finish(refused, state=State.failed, verdict=None, problem=misfit, artifact=None)
        backstage.start(running)
        checkpoint = client.get(f"/v1/conversions/{passed}").json()["checkpoint"]["sha256"]
    conversions = {"passed": passed, "failed": failed, "refused": refused, "running": running}
    return {
        "start": "/",
        "list": "/conversions",
        **{name: f"/conversions/{id}" for name, id in conversions.items()},
        "report": f"/v1/conversions/{passed}/report",
        "architectures": "/architectures",
        "architecture": "/architectures/torchvision/resnet18",
        "checkpoint": f"/checkpoints/{checkpoint}",
        "checkpoints": "/checkpoints",
        "administration": "/administration",
        "sign in": "/sign-in",
        "compare": f"/compare?first={passed}&second={failed}",
        "problems": "/problems",
        "nowhere": "/nowhere",
        "one problem": "/problems/key_mismatch",
        "start with an uploaded file": f"/?checkpoint={checkpoint}&architecture=torchvision/resnet18",
        "guide": "/guide/tasks",
        "concepts": "/guide/concepts",
        "found in the guide": "/guide?query=ledger",
        "operations": "/docs",
        "graph": f"/graph/?url=/graph/{passed}.onnx&identifier=a.onnx",
    }


OF_OTHERS = frozenset({"operations", "graph"})
"""Pages of Swagger UI and Netron: nothing serious is wrong with them."""


def violations(tab: Page) -> list[dict[str, Any]]:
    """What axe-core finds, by a way that also leads to pages that take eval away."""
    session = tab.context.new_cdp_session(tab)
    session.send("Runtime.evaluate", {"expression": AXE.read_text()})
    run = {"expression": "axe.run().then((told) => told.violations)", "awaitPromise": True, "returnByValue": True}
    found: list[dict[str, Any]] = session.send("Runtime.evaluate", run)["result"]["value"]
    return found


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 390)])
def test_every_page_is_accessible(browser: Browser, url: str, paths: dict[str, str], scheme: str, width: int):
    context = browser.new_context(
        base_url=url, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    found = {}
    for name, path in paths.items():
        tab = context.new_page()
        tab.goto(path)
        if name == "operations":
            tab.locator(".opblock").first.wait_for()
        found[name] = [
            (each["id"], [node["target"] for node in each["nodes"]])
            for each in violations(tab)
            if name not in OF_OTHERS or each["impact"] in ("serious", "critical")
        ]
        tab.close()
    context.close()
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_every_link_of_every_page_leads_somewhere(url: str, paths: dict[str, str]):
    """All pages that pages lead to, what they load, and the places within them."""
    import httpx

    seen: dict[str, str] = {}
    waiting, places, broken = list(paths.values()), set[tuple[str, str]](), []
    with httpx.Client(base_url=url, timeout=60, headers={"Accept": "text/html"}) as client:
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            answer = client.get(path)
            is_page = answer.headers.get("content-type", "").startswith("text/html") and not path.startswith("/graph/")
            seen[path] = answer.text if is_page else ""
            if answer.status_code >= 400 and path != paths["nowhere"]:
                broken.append((path, answer.status_code))
            for link in re.findall(r'(?:href|src)="([^"]*)', seen[path]):
                there, _, place = urljoin(path, html.unescape(link)).partition("#")
                if there.startswith("/") and not SAME_KIND.match(there):
                    waiting.append(there)
                    places.add((there, place))
    assert broken == []
    assert len(seen) > 100
    guide = {(there, place) for there, place in places if place and there.startswith("/guide/")}
    assert {(there, place) for there, place in guide if f'id="{place}"' not in seen[there]} == set()
