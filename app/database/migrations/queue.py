"""Procrastinate's schema. It ships its whole schema and numbered migration files, and leaves applying them to us.

A new database gets the whole schema, and every file counts as applied; an older one gets the files that it lacks, in
order of their names (which begin with the version they belong to). ``queue_migrations`` remembers which.
"""

from pathlib import Path
from typing import LiteralString

from procrastinate.schema import SchemaManager
from psycopg import Connection as DriverConnection
from sqlalchemy import Connection, text


def migrate_queue(connection: Connection) -> None:
    """Bring the queue's tables to the installed Procrastinate's version.

    One transaction per file, because a value added to an enumeration can be used only after a commit.
    """
    with connection.begin():
        connection.execute(text("create table if not exists queue_migrations (name text primary key)"))
        missing = missing_of_queue(connection)
        if connection.scalar(text("select to_regclass('procrastinate_jobs')")) is None:
            _execute(connection, SchemaManager.get_schema())
            _remember(connection, missing)
            missing = []
    for file in missing:
        with connection.begin():
            _execute(connection, file.read_text(encoding="utf-8"))
            _remember(connection, [file])
    with connection.begin():
        _index_what_waits(connection)


def missing_of_queue(connection: Connection) -> list[Path]:
    """The files of the installed Procrastinate that were not applied, in their order."""
    applied = set(connection.scalars(text("select name from queue_migrations")))
    files = sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    return [file for file in files if file.name not in applied]


def _index_what_waits(connection: Connection) -> None:
    """What the queue's own indexes do not offer: what waits beside conversions, of which many may wait."""
    connection.execute(
        text(
            "create index if not exists recast_waiting_beside on procrastinate_jobs (queue_name, priority desc, id)"
            " where status = 'todo' and queue_name <> 'conversions'"
        )
    )


def _remember(connection: Connection, files: list[Path]) -> None:
    for file in files:
        connection.execute(text("insert into queue_migrations values (:name)"), {"name": file.name})


def _execute(connection: Connection, script: LiteralString) -> None:
    """Run a script of many statements as it stands: without parameters, so that % and : mean themselves."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, DriverConnection)
    driver.execute(script)
