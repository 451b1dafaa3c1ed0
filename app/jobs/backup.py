"""Backup and restore of database and store together: a directory that holds both as they were at one moment.

    backup.json             what it is: of which database, of when, by which schema, what was missing
    database-TIME.dump      all tables (pg_dump's custom format), from one snapshot
    objects/sha256/ab/...   every object that those tables refer to

It may be taken while the service runs. Objects never change, so a later backup into the same directory copies only what
is new; a backup that was broken off leaves the one before it whole.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from app.database import dump
from app.database.migrations import migrate
from app.database.worker_role import WorkerRole
from app.domain.errors import RecastError
from app.storage.directory import DirectoryStore
from app.storage.objects import MissingObject, ObjectStore, OwnableStore
from app.threads import in_thread

FORMAT = 1
NAME = "backup.json"
ANY_SIZE = 1 << 62
FOREVER = datetime.max.replace(tzinfo=UTC)


class NoBackup(RecastError):
    code, status, title = "no_backup", 422, "The directory holds no backup that can be restored"
    hint = "Name the directory that `recast backup` wrote to."


class ForeignStore(RecastError):
    code, status, title = "store_of_another_database", 409, "The store belongs to another database"
    hint = "Restore into a store of its own: RECAST_STORE_URL, or another data directory."


@dataclass(frozen=True)
class Backup:
    """What ``backup.json`` tells."""

    format: int
    created_at: str
    database: str
    """Name of the file of the tables."""
    identity: str
    schema: str
    objects: int
    missing: list[str]
    """sha256 of objects that rows refer to and that the store no longer held."""


async def back_up(url: str, store: ObjectStore, directory: Path) -> Backup:
    """Write a backup into ``directory``, which may hold an earlier one. Raises Unavailable, InsufficientStorage."""
    objects = _objects(directory)
    await in_thread(objects.make)
    now = datetime.now(UTC)
    name = f"database-{now:%Y%m%dT%H%M%S%fZ}.dump"
    async with _snapshot(url) as taken:
        await in_thread(partial(dump.dump, url, taken, directory / name))
        missing = [sha256 for sha256 in taken.objects if not await _copied(store, objects, sha256)]
    told = Backup(FORMAT, now.isoformat(), name, taken.identity, taken.schema, len(taken.objects), missing)
    await in_thread(partial(_write, directory, told))
    await _prune(directory, objects, told, set(taken.objects))
    return told


async def restore(
    directory: Path, url: str, store: OwnableStore, *, replace: bool = False, role: WorkerRole | None = None
) -> Backup:
    """Make database and store what they were. The database must hold nothing, unless ``replace``. ``role``: whom
    workers connect as.

    Raises NoBackup, RestoreRefused, ForeignStore, Unavailable. Broken off, it is done again from the start.
    """
    told = _read(directory)
    present = await in_thread(partial(dump.refuse_to_lose, url, replace=replace))
    owner = await store.owner()
    if owner not in (None, told.identity, present):
        raise ForeignStore(f"It belongs to the database {owner!r}, the backup is of {told.identity!r}.")
    objects = _objects(directory)
    held = [sha256 async for sha256 in objects.older_than(FOREVER)]
    wanted = told.objects - len(told.missing)
    if len(held) < wanted:
        raise NoBackup(f"The backup was of {wanted} objects and holds {len(held)}.")
    await store.claim(told.identity, take_over=True)
    for sha256 in held:
        await _copied(objects, store, sha256)
    await in_thread(partial(dump.load, url, directory / told.database))
    await in_thread(partial(migrate, url, role=role))
    await in_thread(partial(dump.settle, url))
    return told


def _objects(directory: Path) -> DirectoryStore:
    return DirectoryStore(directory / "objects")


@asynccontextmanager
async def _snapshot(url: str) -> AsyncIterator[dump.Snapshot]:
    context = dump.snapshot(url)
    taken = await in_thread(context.__enter__)
    try:
        yield taken
    finally:
        await in_thread(partial(context.__exit__, None, None, None))


async def _copied(source: ObjectStore, target: ObjectStore, sha256: str) -> bool:
    """Have an object in the target, hashed on the way; False when the source does not hold it."""
    size = await source.size(sha256)
    if size is None:
        return False
    if await target.size(sha256) == size:
        return True

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in source.stream(sha256):
            yield bytes(chunk)

    try:
        await target.receive(chunks(), limit=ANY_SIZE, expected_sha256=sha256)
    except MissingObject:
        return False
    return True


async def _prune(directory: Path, objects: DirectoryStore, told: Backup, wanted: set[str]) -> None:
    """Remove what only earlier backups had."""
    for dumped in directory.glob("database-*.dump"):
        if dumped.name != told.database:
            dumped.unlink()
    for sha256 in [one async for one in objects.older_than(FOREVER) if one not in wanted]:
        await objects.collect(sha256, FOREVER)


def _write(directory: Path, told: Backup) -> None:
    written = directory / f".{NAME}"
    with written.open("w") as file:
        json.dump(asdict(told), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    written.rename(directory / NAME)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(directory: Path) -> Backup:
    try:
        told = Backup(**json.loads((directory / NAME).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise NoBackup(f"{directory / NAME} cannot be read: {str(error)[:200]}.") from None
    if told.format != FORMAT or not (directory / told.database).is_file():
        raise NoBackup(f"{directory} holds a backup of format {told.format}, without the file {told.database!r}.")
    return told
