"""Migrations: they make exactly the tables that the code describes, and any number of processes may run them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from procrastinate.schema import SchemaManager
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from app.database import migrations
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


FIRST_RELEASE = "0018"
"""From here on a version must be able to run on the schema of the next one: a fleet is upgraded part by part."""
_COLUMNS = """
    select c.table_name || '.' || c.column_name, c.data_type, c.is_nullable, c.column_default is not null
    from information_schema.columns c join pg_tables t on t.tablename = c.table_name
    where c.table_schema = 'public' and t.schemaname = 'public' and c.table_name not like 'procrastinate%'
"""
_CONSTRAINTS = """
    select conrelid::regclass || ' ' || conname from pg_constraint
    where connamespace = 'public'::regnamespace and contype in ('u', 'c', 'f', 'x') and conrelid <> 0
"""
_UNIQUE = """
    select indrelid::regclass || ' ' || indexrelid::regclass from pg_index join pg_class on pg_class.oid = indrelid
    where indisunique and relnamespace = 'public'::regnamespace
"""


def revisions() -> list[str]:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


def contract(url: str) -> tuple[dict[str, tuple[str, str, bool]], set[str]]:
    """Columns with type, nullability and whether they have a default; and what restricts rows."""
    with psycopg.connect(url) as connection:
        columns = {name: tuple(rest) for name, *rest in connection.execute(_COLUMNS)}
        restricting = {row[0] for query in (_CONSTRAINTS, _UNIQUE) for row in connection.execute(query)}
    return columns, restricting


def test_every_schema_can_be_lived_with_by_the_version_before(empty_url: str) -> None:
    """Nothing that older code reads goes, nothing that it does not know must be written, no row that it writes is
    refused. What is to go, goes a release after the code that used it."""
    migrate(empty_url, FIRST_RELEASE)
    columns, restricting = contract(empty_url)
    for revision in revisions()[revisions().index(FIRST_RELEASE) + 1 :]:
        migrate(empty_url, revision)
        newer, newly_restricting = contract(empty_url)
        tables_before = {name.split(".")[0] for name in columns}
        for name, described in columns.items():
            assert newer.get(name) == described, f"{revision} changes {name}"
        for name in newer.keys() - columns.keys():
            _, nullable, default = newer[name]
            known = name.split(".")[0] in tables_before
            assert not known or nullable == "YES" or default, f"{revision}: older code does not write {name}"
        for name in newly_restricting - restricting:
            assert name.split()[0] not in tables_before, f"{revision}: {name} may refuse what older code writes"
        columns, restricting = newer, newly_restricting


def test_a_database_that_a_later_version_has_migrated_is_left_alone(database_url: str) -> None:
    """Processes of the version before start again in the middle of an upgrade."""
    with psycopg.connect(database_url) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    migrate(database_url)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select version_num from alembic_version").fetchone() == ("9999",)
