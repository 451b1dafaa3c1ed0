"""One supervisor for all tests of a session: its forkserver starts once, without torch."""

from collections.abc import Iterator

import pytest

from app.jobs.supervisor import Supervisor


@pytest.fixture(scope="session")
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor(preload=("app.jobs.child",))
    yield supervisor
    supervisor.close()
