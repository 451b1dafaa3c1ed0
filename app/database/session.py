"""The way to the database: one engine per process, one short transaction or reading per use."""

import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from typing import Any

from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DisconnectionError, InternalError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from app.database import sealing
from app.database.projects import session_info

TCP: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 14_000,
}
"""Of libpq (seconds, milliseconds): a machine that vanished says nothing, and without these it is waited for by the
defaults of TCP, which are minutes to hours."""
SESSION_OPTIONS = (
    "-c idle_in_transaction_session_timeout=10s "
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3 -c tcp_user_timeout=14s"
)
"""A process that freezes within a transaction must not hold its row locks for ever: the server then ends its session,
and others can rescue what it was working on. No transaction of ours waits for anything but the database. The rest is
TCP for the server's side."""

OF_NO_USE = (IdleInTransactionSessionTimeout, ReadOnlySqlTransaction)
"""The server ended a session in the way of SESSION_OPTIONS, as where a machine stood still for seconds; or it takes no
writes for now: another is about to replace it, or its provider stopped it because its disk is full."""


class Database:
    """An engine with its sessions. ``url`` is a libpq URL: postgresql://user:password@host/name.

    ``seed``: of the key that secrets are sealed with (sealing.py).
    """

    def __init__(self, url: str, pool: int = 10, seed: bytes | None = None) -> None:
        self.url = url
        self.project: str | None = None
        self._engine = create_async_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=pool,
            max_overflow=pool,
            pool_timeout=10,
            connect_args={**TCP, "connect_timeout": 5, "application_name": "recast", "options": SESSION_OPTIONS},
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_ended)
        event.listen(self._engine.sync_engine, "handle_error", _drop_those_of_no_use)
        self._autocommitting = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._info = sealing.session_info(seed)
        self._bind()

    def of(self, project: str) -> "Database":
        """The same database as that project sees it: sessions of what it owns."""
        seen = copy(self)
        seen.project = project
        seen._info = {**self._info, **session_info(project)}
        seen._bind()
        return seen

    def _bind(self) -> None:
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False, info=self._info)
        self._readings = async_sessionmaker(self._autocommitting, expire_on_commit=False, info=self._info)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits when the block ends and rolls back when it raises.

        Raises OperationalError also for what is of no more use than a connection that ended (OF_NO_USE): the driver
        counts that as internal errors.
        """
        try:
            async with self._sessions.begin() as session:
                yield session
        except InternalError as error:
            if not isinstance(error.orig, OF_NO_USE):
                raise
            raise OperationalError(error.statement, error.params, error.orig) from error

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session for queries that need not see one state: each is one round trip, a transaction takes two more."""
        async with self._readings() as session:
            yield session

    @asynccontextmanager
    async def exclusively(self, key: int) -> AsyncIterator[bool]:
        """Hold the advisory lock of that key for the block, without a transaction; False where another holds it."""
        async with self._engine.connect() as pooled:
            connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
            ours = bool(await connection.scalar(text("select pg_try_advisory_lock(:key)"), {"key": key}))
            try:
                yield ours
            finally:
                if ours:
                    await connection.execute(text("select pg_advisory_unlock(:key)"), {"key": key})

    async def ping(self) -> None:
        """One round trip; raises sqlalchemy.exc.SQLAlchemyError when the database does not answer."""
        async with self._engine.connect() as connection:
            await connection.execute(text("select 1"))

    async def close(self) -> None:
        await self._engine.dispose()


def _refuse_ended(connection: DBAPIConnection, record: object, proxy: object) -> None:
    """Have the pool connect anew where the server has ended a connection that lay idle.

    There is something to read then: no query is under way whose answer it could be. Asking the server instead would
    take a round trip, for each use.
    """
    del record, proxy
    driver = connection.driver_connection
    waiting = select.poll()
    if not driver.closed:
        waiting.register(driver.pgconn.socket, select.POLLIN)
    if driver.closed or waiting.poll(0):
        raise DisconnectionError


def _drop_those_of_no_use(context: ExceptionContext) -> None:
    """Have the pool connect anew: where the address leads to another server by now, that is the one to ask."""
    if isinstance(context.original_exception, OF_NO_USE):
        context.is_disconnect = True


async def commit_without_waiting(session: AsyncSession) -> None:
    """Let the session's commit not wait until it is on the disk: a crash of the database may lose it, nothing else.

    Commits that notify hold a lock of the whole server until they are on the disk, one after the other
    (PreCommit_Notify in PostgreSQL's async.c). So what is told often and may be lost must not wait (docs/scaling.md).
    """
    await session.execute(text("set local synchronous_commit to off"))
