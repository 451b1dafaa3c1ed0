"""Brings the schema to the newest version: our tables by Alembic, the queue's by its own numbered files."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from app.database.migrations.queue import migrate_queue

LOCK = 0x5EC0A57
"""Key of the advisory lock under which one process migrates while the others wait."""


def migrate(url: str) -> None:
    """Apply what is missing; safe to call from any number of processes at once.

    Each step is a transaction of its own that also records the step: a crash in between is made good by the next call.
    Blocks; ``url`` is a libpq URL.
    """
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            with connection.begin():
                connection.execute(text("select pg_advisory_lock(:key)"), {"key": LOCK})  # until the session ends
            with connection.begin():
                _migrate_tables(connection)
            migrate_queue(connection)
    finally:
        engine.dispose()


def _migrate_tables(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
