"""Writing the database to a file and reading it back, by PostgreSQL's own programs."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.database.embedded import programs
from app.database.references import ALL_REFERRED_TO, COLLECTING
from app.database.tables import Table
from app.domain.errors import RecastError, Unavailable

OURS = "recast%"
"""What connections of ours call themselves."""


class RestoreRefused(RecastError):
    code, status, title = "restore_refused", 409, "The database is not one that a backup can be restored into"
    hint = "Restore into a database of its own that no service uses."


@dataclass(frozen=True)
class Snapshot:
    """What the database holds at one moment."""

    name: str
    """By which pg_dump finds it."""
    identity: str
    """What the database is called."""
    schema: str
    """Its newest migration."""
    objects: Sequence[str]
    """sha256 of every object of the store that a row refers to."""


@contextmanager
def snapshot(url: str) -> Iterator[Snapshot]:
    """A moment of the database, which can be dumped for as long as the block; no object is removed from the store
    meanwhile."""
    with psycopg.connect(url, application_name="recast backup") as connection:
        connection.execute("select pg_advisory_lock_shared(%s)", [COLLECTING])
        connection.commit()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        try:
            yield Snapshot(
                name=str(_one(connection, "select pg_export_snapshot()")),
                identity=str(_one(connection, "select id from identity")),
                schema=str(_one(connection, "select version_num from alembic_version")),
                objects=[row[0] for row in connection.execute(ALL_REFERRED_TO).fetchall()],
            )
        finally:
            connection.rollback()
            connection.execute("select pg_advisory_unlock_shared(%s)", [COLLECTING])


def dump(url: str, taken: Snapshot, to: Path) -> None:
    """Write all tables as they were at that moment. Raises Unavailable in pg_dump's words."""
    _run(url, "pg_dump", "--format=custom", f"--snapshot={taken.name}", "--schema=public", f"--file={to}")
    with to.open("rb") as file:
        os.fsync(file.fileno())


def refuse_to_lose(url: str, *, replace: bool) -> str | None:
    """What the database is called, None for an empty one. Raises RestoreRefused where a service uses it, it holds
    tables of others, or, unless ``replace``, rows of ours."""
    with psycopg.connect(url, application_name="restoring") as connection:
        users = _one(
            connection,
            "select count(*) from pg_stat_activity where datname = current_database() and application_name like %s",
            OURS,
        )
        if users:
            raise RestoreRefused(f"{users} connections of a service are open.", hint="Stop api and workers first.")
        present = {row[0] for row in connection.execute("select tablename from pg_tables where schemaname = 'public'")}
        foreign = sorted(name for name in present if not _is_ours(name))
        if foreign:
            raise RestoreRefused(f"It holds tables of others: {', '.join(foreign[:10])}.")
        if "identity" not in present:
            return None
        if not replace and _one(
            connection, "select exists (select from checkpoints) or exists (select from conversions)"
        ):
            raise RestoreRefused("It holds checkpoints or conversions.", hint="--replace restores over them.")
        return str(_one(connection, "select id from identity"))


def load(url: str, dumped: Path) -> None:
    """Put the dumped tables in the place of what the database holds. Raises Unavailable in pg_restore's words."""
    with psycopg.connect(url, application_name="restoring") as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    whole = ("--single-transaction", "--exit-on-error", "--clean", "--if-exists")  # a dump may make the schema itself
    _run(url, "pg_restore", *whole, "--no-owner", "--no-privileges", str(dumped))


def settle(url: str) -> None:
    """What no longer holds of a restored database: its workers are gone, and what ran in them was not at fault."""
    with psycopg.connect(url, application_name="restoring") as connection:
        connection.execute("update workers set draining = true, gone = true")
        connection.execute("update identity set store_claimed_at = now()")


def _is_ours(table: str) -> bool:
    return table in Table.metadata.tables or table.startswith(("procrastinate_", "alembic_version", "queue_migrations"))


def _one(connection: psycopg.Connection[tuple[object, ...]], query: str, *values: object) -> object:
    row = connection.execute(query, values or None).fetchone()
    assert row is not None
    return row[0]


def _run(url: str, program: str, *arguments: str) -> None:
    """The password goes by the environment, which other users cannot read, and not by the command line."""
    told = conninfo_to_dict(url)
    password = told.pop("password", None)
    target = make_conninfo("", **{**told, "application_name": "restoring"})
    done = subprocess.run(
        [str(_program(program)), f"--dbname={target}", "--no-password", *arguments],
        env={"PATH": os.environ.get("PATH", ""), **({"PGPASSWORD": str(password)} if password else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"{program}: {done.stderr.strip()[-1000:]}")


def _program(name: str) -> Path:
    """PostgreSQL's own of the embedded server, else what the machine has."""
    try:
        return programs() / name
    except Unavailable:
        if found := shutil.which(name):
            return Path(found)
        raise Unavailable(f"{name} is not installed: install PostgreSQL's client programs.") from None
