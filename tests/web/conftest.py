from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.api.conftest import backstage, client, settings, url  # noqa: F401 - the api of these tests, as fixtures
from tests.delivery.browser import running_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


@pytest.fixture
def tab(browser: Browser, url: str) -> Iterator[Page]:  # noqa: F811
    """A tab on the service whose console must stay empty and whose requests must all go to the service."""
    context = browser.new_context(base_url=url, viewport={"width": 1100, "height": 900})
    page = context.new_page()
    foreign: list[str] = []
    page.on("request", lambda request: None if request.url.startswith((url, "data:")) else foreign.append(request.url))
    page.on("console", lambda message: foreign.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: foreign.append(str(error)))
    yield page
    context.close()
    assert foreign == []
