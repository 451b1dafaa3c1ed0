"""A real browser for the pages; a machine without one fails these tests and is told what to install."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def browser_path() -> str:
    named = os.environ.get("RECAST_TEST_BROWSER")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("The page tests need Chromium: apt-get install chromium, or name one with RECAST_TEST_BROWSER.")
    return found


@contextmanager
def running_browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, html: str, *, dark: bool = False, width: int = 1100) -> Iterator[tuple[Page, list[str]]]:
    """The page as a file in the browser, and every address it asks for and every dialog or message it makes."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "report.html"
        path.write_text(html, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        happened: list[str] = []
        page.on("request", lambda request: happened.append(request.url))
        page.on("dialog", lambda dialog: (happened.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda message: happened.append(f"console {message.text}"))
        page.goto(path.as_uri(), wait_until="load")
        happened.remove(path.as_uri())
        yield page, happened
        page.close()
