"""Brings the schema to the newest version: our tables by Alembic, the queue's by its own numbered files."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from app.database.migrations.queue import migrate_queue

LOCK = 0x5EC0A57
"""Key of the advisory lock under which one process migrates while the others wait."""


def migrate(url: str, revision: str = "head") -> None:
    """Apply what is missing; safe to call from any number of processes at once.

    Each step is a transaction of its own that also records the step: a crash in between is made good by the next call.
    Blocks; ``url`` is a libpq URL. A database that a later version has migrated is left as it is.
    """
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            with connection.begin():
                connection.execute(text("select pg_advisory_lock(:key)"), {"key": LOCK})  # until the session ends
            with connection.begin():
                _migrate_tables(connection, revision)
            migrate_queue(connection)
    finally:
        engine.dispose()


def _migrate_tables(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    if not _is_newer(config, connection):
        command.upgrade(config, revision)


def _is_newer(config: Config, connection: Connection) -> bool:
    """Whether a later version of the service has migrated the database: while a fleet is upgraded, processes of this
    version start again on it. They can, because migrations only add (docs/operations.md)."""
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    return current is not None and current not in known
