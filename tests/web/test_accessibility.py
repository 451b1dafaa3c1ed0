"""axe-core finds nothing on any page, in light and dark, on a screen and on a phone."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from app.domain.conversion import State
from app.domain.errors import Problem
from app.domain.report import Verdict
from tests.api.server import submit
from tests.delivery.reports import failed_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def paths(url, backstage) -> dict[str, str]:
    """Every kind of page, by name."""
    import httpx

    with httpx.Client(base_url=url, timeout=60) as client:
        passed, failed, refused, running = (submit(client).json()["id"] for _ in range(4))
        backstage.finish(passed)
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
        "guide": "/guide/tasks",
    }


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 390)])
def test_every_page_is_accessible(browser: Browser, url: str, paths: dict[str, str], scheme: str, width: int):
    context = browser.new_context(
        base_url=url, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    found = {}
    for name, path in paths.items():
        tab = context.new_page()
        tab.goto(path)
        violations = Axe().run(tab).response["violations"]
        found[name] = [(each["id"], [node["target"] for node in each["nodes"]]) for each in violations]
        tab.close()
    context.close()
    assert {name: faults for name, faults in found.items() if faults} == {}
