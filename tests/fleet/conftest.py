"""One fleet for all tests: two apis and two workers on a PostgreSQL and an S3-speaking store."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.fleet import Fleet

START_LIMIT = 400.0


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="recast-fleet-") as directory:
        Path(directory).chmod(0o755)  # the database's system user passes through
        settings = {"RECAST_WORKER_LOST_AFTER": "5", "RECAST_CHILDREN": "2", "RECAST_MAX_QUEUED": "5"}
        fleet = Fleet(Path(directory), workers=2, settings=settings, restarting=False)
        try:
            fleet.start()
            fleet.until_ready(START_LIMIT)
            yield fleet
        finally:
            fleet.end()
