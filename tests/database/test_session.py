"""What the end of a connection looks like to who waits for outages to pass, and to who asks next."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.entries import DELIVERIES, cancel, defer
from app.database.session import Database
from app.jobs.patience import DATABASE, away

pytestmark = pytest.mark.anyio


async def defer_one(session: AsyncSession) -> int:
    return await defer(session, DELIVERIES, timedelta(seconds=5), delivery_id="any")


async def cancel_one(session: AsyncSession) -> None:
    await cancel(session, (await session.execute(text("select max(id) from procrastinate_jobs"))).scalar_one())


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
        connection = (await (await session.connection()).get_raw_connection()).driver_connection
    assert connection
    await connection.close()
    async with database.reading() as session:
        assert await session.scalar(text("select 1")) == 1


@pytest.mark.parametrize("code", ["53100", "25006"], ids=["its disk is full", "it takes no writes"])
@pytest.mark.parametrize("do", [defer_one, cancel_one], ids=["adding", "canceling"])
async def test_a_server_that_refuses_an_entry_for_now_is_away(
    database: Database, code: str, do: Callable[[AsyncSession], Awaitable[object]]
) -> None:
    """As any server while its disk is full; or one that another is about to replace."""
    refusing = f"begin raise exception 'for now' using errcode = '{code}'; end"
    async with database.transaction() as session:
        await defer_one(session)
        await session.execute(text(f"create function refuse() returns trigger language plpgsql as $${refusing}$$"))
        changed = "before insert or update on procrastinate_jobs"
        await session.execute(text(f"create trigger refuse {changed} for each row execute function refuse()"))

    async def tried() -> None:
        async with database.transaction() as session:
            await do(session)

    with pytest.raises(Exception) as refused:  # noqa: PT011 - which one, is what is asked
        await tried()
    assert away(refused.value) == DATABASE


async def test_a_server_that_takes_no_writes_is_asked_on_a_new_connection_next(database: Database) -> None:
    """The address may lead to the one that replaced it by then."""

    async def written() -> int:
        async with database.transaction() as session:
            return await defer_one(session)

    async with database.transaction() as session:
        await session.execute(text("set session characteristics as transaction read only"))
    with pytest.raises(OperationalError):
        await written()
    assert await written()
