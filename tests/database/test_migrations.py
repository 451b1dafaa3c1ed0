"""Migrations: they make exactly the tables that the code describes, and any number of processes may run them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from procrastinate.schema import SchemaManager
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from app.database.migrations import migrate
from app.database.tables import Table


@pytest.fixture
def empty_url(postgres_url: str, database_url: str) -> str:
    """A database without any table."""
    name = make_url(database_url).database
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}")
        connection.execute(f"CREATE DATABASE {name}")
    return database_url


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute("select tablename from pg_tables where schemaname = 'public'")}


def test_migrations_make_the_described_tables(database_url: str) -> None:
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, _: kind != "table" or name in Table.metadata.tables},
        )
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


def test_many_may_migrate_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [empty_url] * 4))
    assert {"conversions", "procrastinate_jobs"} <= tables(empty_url)


def test_migrating_again_keeps_rows(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("insert into checkpoints (sha256, bytes) values ('ab', 1)")
    migrate(database_url)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select count(*) from checkpoints").fetchone() == (1,)


def test_an_older_queue_gets_the_migrations_it_lacks(empty_url: str) -> None:
    """A queue as Procrastinate's first migration made it ends with the functions of the installed version."""
    first = min(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    with psycopg.connect(empty_url) as connection:
        connection.execute(first.read_text())
        connection.execute("create table queue_migrations (name text primary key)")
        connection.execute("insert into queue_migrations values (%s)", [first.name])
    migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        assert connection.execute("select to_regproc('procrastinate_defer_jobs_v1')").fetchone() != (None,)


def test_a_migration_that_failed_is_made_good_by_the_next(empty_url: str) -> None:
    with psycopg.connect(empty_url) as connection:
        connection.execute("create type procrastinate_job_status as enum ('in the way')")
    with pytest.raises(psycopg.Error):
        migrate(empty_url)
    assert "procrastinate_workers" not in tables(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute("drop type procrastinate_job_status")
    migrate(empty_url)
    assert {"conversions", "procrastinate_jobs"} <= tables(empty_url)
