"""What a person does in a browser, on the whole running service; nobody plays the worker here."""

import base64
import hashlib
import importlib.util
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import torchvision
from playwright.sync_api import Browser, Page, expect

from tests.delivery.browser import running_browser
from tests.service.requests import saved
from tests.service.running import Service

QUICKSTART = Path(__file__).parents[2] / "docs" / "quickstart.md"
ARCHITECTURE = "torchvision/squeezenet1_1"
CONVERTED = 240_000
"""Milliseconds that a conversion may take on a busy machine."""

Opened = Callable[..., Page]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


@pytest.fixture
def opened(browser: Browser, service: Service) -> Iterator[Opened]:
    """Makes tabs on the service, in which no request may leave it and no error may be told to the console."""
    contexts, wrong = [], list[str]()

    def note(request: Any) -> None:
        if not request.url.startswith((service.url, "data:", "blob:")):
            wrong.append(request.url)

    def tab(**options: Any) -> Page:
        context = browser.new_context(base_url=service.url, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", note)
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        return page

    yield tab
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def birds() -> bytes:
    """A checkpoint as a training loop leaves it: nested, from several devices, with a head of its own."""
    state = torchvision.models.squeezenet1_1(num_classes=37).state_dict()
    return saved({"epoch": 12, "model": {f"module.{key}": tensor for key, tensor in state.items()}, "loss": 0.3})


def file(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def drop(tab: Page, name: str, content: bytes) -> None:
    """Let a file fall on the form, as a desktop does."""
    transfer = tab.evaluate_handle(
        """([name, content]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(atob(content), (each) => each.charCodeAt(0))], name));
          return transfer;
        }""",
        [name, base64.b64encode(content).decode()],
    )
    tab.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def verified(tab: Page) -> str:
    """Id of the conversion whose page says in the end that it is proved."""
    expect(tab.locator(".banner strong")).to_have_text(re.compile("^Verified"), timeout=CONVERTED)
    return tab.url.rsplit("/", 1)[1]


def test_a_dropped_file_is_recognised_converted_and_downloaded_a_year_from_now(
    opened: Opened, client: httpx.Client, birds: bytes
):
    tab = opened(viewport={"width": 1100, "height": 900})
    tab.clock.install(time="2027-12-01T00:00:00Z")
    tab.goto("/")
    drop(tab, "birds.pth", birds)
    expect(tab.locator("#found")).to_contain_text("52 tensors")
    tab.get_by_role("button", name=f"Use {ARCHITECTURE} with num_classes=37").click()
    expect(tab.get_by_label("num classes")).to_have_value("37")
    expect(tab.locator("#proposal")).to_contain_text("It fits")
    tab.get_by_text("Options of the target").click()
    tab.locator("#target-opset").fill("18")
    tab.get_by_role("button", name="Convert").click()
    expect(tab.locator("[data-stage].now")).to_be_visible(timeout=CONVERTED)
    expect(tab.locator("#log pre")).to_be_visible()
    conversion = client.get(f"/v1/conversions/{verified(tab)}").json()
    assert (conversion["architecture_options"], conversion["options"]["opset"]) == ({"num_classes": 37}, 18)
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download torchvision-squeezenet1_1.onnx").click()
    assert hashlib.sha256(download.value.path().read_bytes()).hexdigest() == conversion["artifact"]["sha256"]
    tab.get_by_text("Log of the conversion").click()
    expect(tab.locator("#log pre")).not_to_have_text("…")
    statement = tab.request.get(tab.get_by_role("link", name="Signed statement").get_attribute("href") or "")
    assert statement.json()["payloadType"] == "application/vnd.in-toto+json"
    tab.get_by_role("link", name="Graph").click()
    tab.wait_for_url(re.compile("/graph/"))


def test_on_a_phone_a_file_that_does_not_fit_is_told_why_and_converted_after_the_remedy(opened: Opened, birds: bytes):
    tab = opened(viewport={"width": 390, "height": 800}, color_scheme="dark", has_touch=True)
    tab.goto("/")
    tab.locator("#file").set_input_files(file("birds.pth", birds))
    tab.get_by_label("Architecture", exact=True).fill(ARCHITECTURE)
    tab.get_by_label("Architecture", exact=True).blur()
    expect(tab.locator("#proposal")).to_contain_text("It does not fit")
    tab.get_by_role("button", name="Convert").click()
    expect(tab.locator(".banner.fail")).to_contain_text(
        "The checkpoint does not fit the architecture", timeout=CONVERTED
    )
    expect(tab.locator(".banner.fail")).to_contain_text("What to do: torchvision/squeezenet1_1 with num_classes=37")
    expect(tab.locator("li", has_text="classifier.1.weight")).to_be_visible()
    tab.get_by_role("link", name="Change and convert again").click()
    expect(tab.locator("#chosen")).to_contain_text("uploaded already")
    tab.get_by_role("button", name=f"Use {ARCHITECTURE} with num_classes=37").click()
    expect(tab.locator("#proposal")).to_contain_text("It fits")
    tab.get_by_role("button", name="Convert").click()
    verified(tab)
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_by_keyboard_alone_a_file_is_chosen_converted_and_the_next_one_canceled(
    opened: Opened, client: httpx.Client, birds: bytes
):
    tab = opened()

    def reach(name: str) -> None:
        for _ in range(120):
            tab.keyboard.press("Tab")
            at = "document.activeElement.id || document.activeElement.textContent.trim()"
            if str(tab.evaluate(at)).startswith(name):
                return
        pytest.fail(f"{name} is not reached by the keyboard")

    def choose(content: bytes) -> None:
        reach("file")
        with tab.expect_file_chooser() as chooser:
            tab.keyboard.press("Space")
        chooser.value.set_files(file("birds.pth", content))  # type: ignore[arg-type]
        expect(tab.locator("#proposal")).to_be_visible(timeout=CONVERTED)

    tab.goto("/")
    choose(birds)
    reach(f"Use {ARCHITECTURE}")
    tab.keyboard.press("Enter")
    expect(tab.get_by_label("num classes")).to_have_value("37")
    reach("Convert")
    tab.keyboard.press("Enter")
    verified(tab)

    tab.goto("/?architecture=torchvision/squeezenet1_0")
    choose(saved(torchvision.models.squeezenet1_0().state_dict()))
    for _ in range(4):  # what the worker does first, so that there is time to cancel
        before_it = {"architecture": ARCHITECTURE, "target": "onnx", "force": "true", "priority": "1"}
        client.post(
            "/v1/conversions", data=before_it, files={"file": saved(torchvision.models.squeezenet1_1().state_dict())}
        )
    reach("Convert")
    tab.keyboard.press("Enter")
    expect(tab.locator("#state")).to_be_visible(timeout=CONVERTED)
    reach("cancel")
    tab.keyboard.press("Enter")
    expect(tab.locator(".banner.fail")).to_contain_text("The conversion was canceled", timeout=CONVERTED)


def test_two_conversions_of_the_list_are_compared(opened: Opened, client: httpx.Client):
    for seed in (1, 2):
        state = torchvision.models.squeezenet1_1().state_dict()
        state["classifier.1.bias"] += seed
        answer = client.post(
            "/v1/conversions",
            headers={"Prefer": "wait=240"},
            files={"file": ("birds.pth", saved(state))},
            data={"architecture": ARCHITECTURE, "target": "onnx", "labels": '{"pair": "browser"}'},
        )
        assert answer.json()["state"] == "succeeded", answer.text
    tab = opened()
    tab.goto("/conversions?label=pair:browser")
    tab.get_by_label("Choose all on this page").check()
    tab.get_by_role("button", name="Compare two").click()
    expect(tab.get_by_text("They are of different uploaded weights.")).to_be_visible()
    expect(tab.locator(".row", has_text="classifier.1")).to_be_visible()


def recognised(client: httpx.Client, state: Mapping[str, torch.Tensor]) -> bool:
    """Waits until the worker has found out what plug-ins' state dicts look like, which it does beside its work."""
    manifest = {key: {"shape": list(tensor.shape)} for key, tensor in state.items()}
    deadline = time.monotonic() + CONVERTED / 1000
    while time.monotonic() < deadline:
        if client.post("/v1/preflight", json={"manifest": manifest}).json()["verdict"] == "loads":
            return True
        time.sleep(0.5)
    return False


def test_the_steps_of_the_quickstart_lead_to_the_file(opened: Opened, client: httpx.Client):
    steps = QUICKSTART.read_text().split("## In under a minute")[1].split("##")[0]
    assert "Drop `quickstart-data/checkpoint.pth`" in steps
    spec = importlib.util.spec_from_file_location("digits", QUICKSTART.parents[1] / "examples/digits/plugins/digits.py")
    assert spec is not None
    assert spec.loader is not None
    digits = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(digits)
    state = digits.digits().state_dict()
    assert recognised(client, state)
    tab = opened()
    tab.goto("/")
    drop(tab, "checkpoint.pth", saved({"epoch": 12, "model": state, "optim": {}, "loss": 0.1}))
    *presses, last = re.findall(r"[Pp]ress \*\*(.+?)\*\*", steps)
    for name in presses:
        tab.get_by_role("button", name=name, exact=True).click()
    verified(tab)
    with tab.expect_download() as download:
        tab.get_by_role("link", name=last).click()
    assert download.value.suggested_filename == "examples-digits.onnx"
