"""What a transaction that the server ended looks like to who waits for outages to pass."""

import psycopg
import pytest
from sqlalchemy import text

from app.database.session import Database
from app.jobs.patience import DATABASE, away

pytestmark = pytest.mark.anyio


async def test_a_transaction_that_stood_still_for_too_long_is_an_outage_and_no_fault_of_the_job(
    database: Database,
) -> None:
    async def stand_still() -> None:
        async with database.transaction() as session:
            await session.execute(text("set local idle_in_transaction_session_timeout = 100"))
            pid = await session.scalar(text("select pg_backend_pid()"))
            with psycopg.connect(database.url, autocommit=True) as other:
                while other.execute("select from pg_stat_activity where pid = %s", (pid,)).rowcount:
                    pass

    with pytest.raises(Exception) as ended:  # noqa: PT011 - which one, is what is asked
        await stand_still()
    assert away(ended.value) == DATABASE
