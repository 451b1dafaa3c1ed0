"""What the processes of the service need before they are of use: a data directory, a store, a database, an address."""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from app.cli.failure import UsageError
from app.cli.mounts import refuse_unmounted, remember_mount
from app.settings import Settings

if TYPE_CHECKING:
    from app.database.worker_role import WorkerRole

DATABASE_DELAY = 1.0
"""Seconds between tries to reach a database that is away."""
COMING_BACK = ("starting up", "shutting down", "recovery", "not yet accepting", "terminating", "too many")
"""How PostgreSQL says that it will take connections soon (postmaster.c, 57P03, 53300)."""
GRACE = 10
"""Seconds that open requests get when the api stops; waiting ones then end with what is known."""
MIGRATED = "RECAST_MIGRATED"
"""The variable in which `recast serve` tells its parts that it has brought the database to the newest schema."""
SUPERVISOR = "RECAST_SUPERVISOR"
"""The variable in which `recast serve` tells its parts which run of it they belong to."""

log = structlog.get_logger("recast.processes")


@contextmanager
def migrated_database(settings: Settings, *, by_others: bool = False) -> Iterator[str]:
    """URL of the database, with the newest schema; the embedded server runs for as long as the block.

    Where the URL's role may not migrate: ``by_others`` waits until others have; else UsageError.
    """
    with running_database(settings) as url:
        log.debug("database_started")
        if settings.database_url is None or MIGRATED not in os.environ:
            _once_it_answers(partial(_migrate, settings, url, by_others))
            log.debug("database_migrated")
        yield url


def worker_role(settings: Settings) -> "WorkerRole | None":
    """Who is given what workers need, after each migration."""
    from app.database.worker_role import WorkerRole

    if settings.worker_role is None:
        return None
    password = settings.worker_role_password
    return WorkerRole(settings.worker_role, None if password is None else password.get_secret_value())


def _migrate(settings: Settings, url: str, by_others: bool) -> str | None:
    """Migrate, or tell what others have to do first."""
    from app.database.migrations import NotTheOwner, migrate, missing_for_worker

    try:
        migrate(url, role=worker_role(settings))
    except NotTheOwner:
        if by_others:
            return missing_for_worker(url)
        raise UsageError(
            "The role that RECAST_DATABASE_URL names may not make or change the database's tables.",
            hint="Only workers may connect as such a role.",
        ) from None
    return None


@contextmanager
def running_database(settings: Settings) -> Iterator[str]:
    """URL of the database as it is; the embedded server runs for as long as the block."""
    from app.database.embedded import EmbeddedPostgres

    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        _refuse_no_url(url)
        yield url
        return
    make_directory(settings.data_dir)
    with EmbeddedPostgres(settings.data_dir) as server, server.supervised():
        remember_mount(settings.data_dir)
        yield server.url


def check_settings(settings: Settings) -> None:
    """Raises UsageError where no part of the service can run with these settings, whatever comes back later."""
    from obstore.exceptions import BaseError

    from app.storage.opening import open_store

    make_directory(settings.data_dir)
    try:
        open_store(settings.objects_location, settings.data_dir / "scratch")
    except (BaseError, OSError, ValueError) as error:
        raise UsageError(
            f"RECAST_STORE_URL names no object store: {str(error).splitlines()[0]}",
            hint="It is a directory, or s3://bucket/prefix, gs://..., az://... with each cloud's usual variables.",
        ) from None


def make_directory(data_dir: Path) -> None:
    """Raises UsageError where it cannot be made, or its disk is not mounted."""
    refuse_unmounted(data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The data directory {data_dir} cannot be used: {error.strerror}.") from None


def _refuse_no_url(url: str) -> None:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        if make_url(url).get_backend_name() not in ("postgresql", "postgres"):
            raise ValueError("it does not begin with postgresql://")
        conninfo_to_dict(url)
    except (ValueError, ArgumentError, psycopg.ProgrammingError) as error:
        raise UsageError(f"RECAST_DATABASE_URL is no URL of a PostgreSQL: {str(error).strip()}.") from None


def _once_it_answers(migrate: Callable[[], str | None]) -> None:
    """Migrate as soon as the database can be reached, and return when nothing is missing any more. Raises UsageError
    where it answers and refuses us."""
    from sqlalchemy.exc import OperationalError

    while True:
        try:
            missing = migrate()
        except OperationalError as error:
            told = str(error.orig).strip()
            if "FATAL" in told and not any(words in told for words in COMING_BACK):
                raise UsageError(
                    f"The database refuses the service: {told.splitlines()[0]}",
                    hint="RECAST_DATABASE_URL names its host, database, user and password.",
                ) from None
            log.warning("waiting_for_database", error=told.split("\n", 1)[0])
        else:
            if missing is None:
                return
            log.warning("waiting_for_migration", missing=missing)
        time.sleep(DATABASE_DELAY)


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold a data directory for the block. Raises UsageError while another process does."""
    make_directory(data_dir)
    lock = os.open(data_dir / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _hold(lock, data_dir)
        yield
    finally:
        os.close(lock)


def _hold(lock: int, data_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode().strip() or "unknown"
        raise UsageError(
            f"Another `recast serve` (process {holder}) runs on the data directory {data_dir}.",
            hint="Stop it first, or give this one a directory of its own: --data-dir (RECAST_DATA_DIR).",
        ) from None
    os.truncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def refuse_to_serve_nobody(settings: Settings, url: str) -> None:
    """Raises UsageError where a key is required and there is none, as on an address beyond loopback."""
    from app.cli.keys import any_valid_key

    if not settings.keys_required or settings.oidc_issuer or any_valid_key(url):
        return
    if settings.require_keys:
        raise UsageError(
            "RECAST_REQUIRE_KEYS demands a key, and there is none.", hint="Make one with `recast keys create`."
        )
    raise UsageError(
        f"{settings.host} can be reached from other machines, so that a key is required, and there is none.",
        hint=(
            "Make one with `recast keys create`, listen on 127.0.0.1, or say --allow-unauthenticated "
            "(RECAST_ALLOW_UNAUTHENTICATED=true)."
        ),
    )


def listen(settings: Settings) -> socket.socket:
    """A listening socket at the settings' address. Raises UsageError when it is taken or does not exist."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}.") from None
