from collections.abc import Iterator

import httpx
import pytest

from tests.service.running import Service, free_port


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that leave it running."""
    running = Service(tmp_path_factory.mktemp("service") / "data", free_port())
    running.start()
    try:
        yield running
    finally:
        assert running.stop() == 0, running.log[-4000:]


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=300) as client:
        yield client
