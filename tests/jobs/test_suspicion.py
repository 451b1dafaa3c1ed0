"""How long a worker must go on without a job before one more death may condemn the job."""

import math
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import func

from app.database import deaths
from app.database.session import Database
from app.database.tables import Death
from app.jobs.suspicion import control_left, suspect

LOST_AFTER = 15.0
CONTROL = 60.0

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session(database: Database) -> AsyncIterator[AsyncSession]:
    """One transaction, in which the database's clock stands still."""
    async with database.transaction() as session:
        yield session


async def died(session: AsyncSession, suspect: str, seconds_ago: int) -> None:
    await deaths.record(session, [suspect])
    ago = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds_ago)
    await session.execute(update(Death).where(Death.suspects == [suspect], Death.at == func.now()).values(at=ago))


async def left(session: AsyncSession, losses: int, lived: float) -> float:
    return await control_left(session, "a", losses, lived=lived, max_attempts=3, lost_after=LOST_AFTER)


async def test_kills_within_seconds_condemn_nobody_however_long_the_worker_has_lived(session: AsyncSession) -> None:
    await died(session, "a", 600)
    await died(session, "a", 20)
    assert await left(session, losses=2, lived=math.inf) == CONTROL - 20


async def test_a_young_worker_waits_however_long_ago_the_last_death_was(session: AsyncSession) -> None:
    await died(session, "a", 600)
    assert await left(session, losses=2, lived=20) == CONTROL - 20


async def test_the_deaths_of_others_prolong_no_control(session: AsyncSession) -> None:
    await died(session, "a", 600)
    await died(session, "b", 0)
    assert await left(session, losses=2, lived=600) == 0


async def test_where_no_death_is_on_record_the_control_counts_from_the_start_of_the_worker(
    session: AsyncSession,
) -> None:
    assert await left(session, losses=2, lived=20) == CONTROL - 20


async def test_a_try_that_cannot_condemn_waits_for_nothing(session: AsyncSession) -> None:
    await died(session, "a", 0)
    assert await left(session, losses=1, lived=0) == 0


async def test_a_clock_that_was_set_back_since_the_last_death_prolongs_no_control(session: AsyncSession) -> None:
    await died(session, "a", 600)
    await died(session, "a", -3600)
    assert await left(session, losses=2, lived=600) == 0


async def test_deaths_with_the_supervisor_have_a_job_run_alone_and_at_once_however_many_they_are(
    session: AsyncSession,
) -> None:
    losses = 0
    for _ in range(20):
        await died(session, "a", 0)
        found = await suspect(session, "a", losses, {"a"}, 3, with_supervisor=True)
        losses = found.losses
        assert (losses, found.condemned, await left(session, losses, lived=0)) == (1, False, 0)
    for condemned in (False, True):
        found = await suspect(session, "a", losses, {"a"}, 3)
        losses = found.losses
        assert found.condemned is condemned
