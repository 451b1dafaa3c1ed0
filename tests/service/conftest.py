import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.running import PLUGINS, Service, free_port

QUICKSTART = Path(__file__).parents[2] / "examples" / "digits" / "plugins"


@pytest.fixture(scope="session")
def places() -> Iterator[Path]:
    """Where services keep their data: not below pytest's own directory, which each run closes to other users."""
    with tempfile.TemporaryDirectory(prefix="recast-tests-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def service(places: Path) -> Iterator[Service]:
    """One service for all tests that leave it running."""
    plugins = places / "plugins"
    shutil.copytree(PLUGINS, plugins)
    shutil.copy(QUICKSTART / "digits.py", plugins)
    settings = {"RECAST_WARM_TEMPLATES": '["sample/tied"]', "RECAST_PLUGINS_DIR": str(plugins)}
    running = Service(places / "shared", free_port(), settings)
    running.start()
    try:
        yield running
    finally:
        assert running.stop() == 0, running.log[-4000:]


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=300) as client:
        yield client
