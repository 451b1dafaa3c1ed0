"""What the end of a connection looks like to who waits for outages to pass, and to who asks next."""

import asyncio

import psycopg
import pytest
from sqlalchemy import text

from app.database.session import Database, driver_connection
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


async def test_connections_that_the_server_ended_while_they_lay_idle_are_replaced(database: Database) -> None:
    async def own_pid(*, reading: bool) -> int:
        async with database.reading() if reading else database.transaction() as session:
            pid: int = (await session.execute(text("select pg_backend_pid() from pg_sleep(0.1)"))).scalar_one()
            return pid

    before = set(await asyncio.gather(*(own_pid(reading=n % 2 == 0) for n in range(6))))
    assert len(before) == 6
    with psycopg.connect(database.url, autocommit=True) as other:
        for pid in before:
            other.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    after = set(await asyncio.gather(*(own_pid(reading=n % 2 == 0) for n in range(6))))
    assert len(after) == 6
    assert not before & after


async def test_a_reading_leaves_no_transaction_to_the_next_user_of_its_connection(database: Database) -> None:
    async with database.reading() as session:
        await session.execute(text("select 1"))
    async with database.transaction() as session:
        await session.execute(text("create temporary table kept (n int) on commit drop"))
        await session.execute(text("insert into kept values (1)"))
        assert await session.scalar(text("select count(*) from kept")) == 1


async def test_a_connection_that_was_closed_here_while_it_lay_idle_is_replaced(database: Database) -> None:
    async with database.transaction() as session:
        connection = await driver_connection(session)
    await connection.close()
    async with database.reading() as session:
        assert await session.scalar(text("select 1")) == 1
