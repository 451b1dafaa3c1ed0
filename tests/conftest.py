"""What every area's tests may use: a real PostgreSQL, one fresh database for each test, and a store in a directory."""

import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.database.embedded import SUPERUSER, USER, EmbeddedPostgres
from app.database.migrations import migrate
from app.database.session import Database
from app.database.worker_role import WorkerRole
from app.storage.directory import DirectoryStore
from app.storage.objects import ObjectStore

WORKERS = WorkerRole("recast_worker", "of-the-workers")
"""Whom workers connect as, in every test that starts some on the session's server."""
LOGINS = f"local all {SUPERUSER} trust\nlocal all all scram-sha-256\n"
PATIENCE = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that none is left to one process while the others have nothing to do any more."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """What is imported now stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of the maintenance database of a server that lives as long as the test session.

    Its directory is none of pytest's: they are closed to other users, and as root the server runs as one.
    """
    # Nothing here must outlive a power cut, and DROP DATABASE ... FORCE may end no worker of autovacuum.
    unsafe = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
    with TemporaryDirectory(prefix="recast-test-") as directory, EmbeddedPostgres(Path(directory), unsafe) as server:
        data = Path(directory) / "postgres" / "data"
        with (data / "pg_hba.conf").open("a") as hba:
            hba.write(LOGINS)
        os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGHUP)
        yield server.url


@pytest.fixture(scope="session")
def superuser_url(postgres_url: str) -> str:
    """URL of the same database, as whom everything is permitted: what makes roles."""
    url = make_url(postgres_url).set(username=SUPERUSER).render_as_string(hide_password=False)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            psycopg.connect(url).close()
            return url
        except psycopg.OperationalError:  # it has not read pg_hba.conf again yet
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="session")
def template_database(postgres_url: str, superuser_url: str) -> str:
    """Name of a migrated database that is only ever copied, with the role of workers."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    with psycopg.connect(superuser_url) as connection:
        connection.execute(f"CREATE ROLE {WORKERS.name} LOGIN PASSWORD '{WORKERS.password}'")
        connection.execute(f"GRANT pg_signal_backend TO {USER}")  # whose DROP DATABASE ... FORCE ends workers' sessions
    migrate(_with_database(postgres_url, "migrated"), role=WorkerRole(WORKERS.name))
    return "migrated"


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a migrated, empty database of the test's own."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
        yield _with_database(postgres_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def worker_url(database_url: str) -> str:
    """URL of the test's own database, as the role of workers."""
    return as_worker(database_url)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """An empty object store in a directory of the test's own."""
    store = DirectoryStore(tmp_path / "objects")
    store.make()
    return store


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked ``anyio`` run on asyncio."""
    return "asyncio"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's own database, opened."""
    database = Database(database_url)
    yield database
    await database.close()


def as_worker(url: str) -> str:
    told = make_url(url).set(username=WORKERS.name, password=WORKERS.password)
    return told.render_as_string(hide_password=False)


def _with_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)
