"""Brings the schema to the newest version: our tables by Alembic, the queue's by its own numbered files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from app.database import worker_role
from app.database.migrations.queue import migrate_queue, missing_of_queue
from app.database.worker_role import WorkerRole

LOCK = 0x5EC0A57
"""Key of the advisory lock under which one process migrates while the others wait."""


class NotTheOwner(Exception):
    """Who connects may not change the tables: it is the role of workers."""


def migrate(url: str, revision: str = "head", role: WorkerRole | None = None) -> None:
    """Apply what is missing; safe to call from any number of processes at once.

    Each step is a transaction of its own that also records the step: a crash in between is made good by the next call.
    Blocks; ``url`` is a libpq URL. A database that a later version has migrated is left as it is. ``role``: whom
    workers connect as, who is then given what they need.

    Raises NotTheOwner, WorkerRoleRefused.
    """
    with _connected(url) as connection:
        with connection.begin():
            if not worker_role.owns_schema(connection):
                raise NotTheOwner
            connection.execute(text("select pg_advisory_lock(:key)"), {"key": LOCK})  # until the session ends
        with connection.begin():
            newer = _is_newer(connection)
            if not newer:
                command.upgrade(_config(connection), revision)
        migrate_queue(connection)
        if role is not None and not newer:
            with connection.begin():
                worker_role.grant(connection, role)


def missing_for_worker(url: str) -> str | None:
    """What others have to do before a worker of this version can run as the role that ``url`` names; None: nothing."""
    with _connected(url) as connection, connection.begin():
        if lacking := worker_role.lacking(connection):
            return f"grants: {', '.join(lacking)}"
        if not _is_newer(connection) and _current(connection) != _scripts().get_current_head():
            return "migrations"
        return "migrations of the queue" if missing_of_queue(connection) else None


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _is_newer(connection: Connection) -> bool:
    """Whether a later version of the service has migrated the database: while a fleet is upgraded, processes of this
    version start again on it. They can, because migrations only add (docs/operations.md)."""
    current = _current(connection)
    return current is not None and current not in {script.revision for script in _scripts().walk_revisions()}
