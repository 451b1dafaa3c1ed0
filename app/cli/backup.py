"""`recast backup` and `recast restore`."""

import asyncio
from pathlib import Path

import typer

from app.cli.failure import FAILED, SHOWN
from app.cli.processes import migrated_database, only_one, running_database, worker_role
from app.database.owned_store import OwnedStore
from app.database.session import Database
from app.jobs.backup import Backup, back_up
from app.jobs.backup import restore as restore_into
from app.settings import Settings
from app.storage.opening import open_store


def backup(settings: Settings, directory: Path) -> int:
    """Back up to a directory; status 1 where objects were missing from the store."""
    directory.mkdir(parents=True, exist_ok=True)

    async def run(url: str) -> Backup:
        database = Database(url, 2)
        try:  # a store that is away, or another's, is not taken for one that has lost everything
            store = OwnedStore(open_store(settings.objects_location, settings.data_dir / "scratch"), database)
            return await back_up(url, store, directory)
        finally:
            await database.close()

    with migrated_database(settings) as url:
        told = asyncio.run(run(url))
    typer.echo(f"{directory} holds the database of {told.created_at} and {told.objects - len(told.missing)} objects.")
    if told.missing:
        typer.echo(f"recast: the store lacks {len(told.missing)} objects that the database refers to:", err=True)
        for sha256 in told.missing[:SHOWN]:
            typer.echo(f"  {sha256}", err=True)
    return FAILED if told.missing else 0


def restore(settings: Settings, directory: Path, replace: bool) -> None:
    """Restore from a directory. No service may run on the database."""
    store = open_store(settings.objects_location, settings.data_dir / "scratch")
    with only_one(settings.data_dir), running_database(settings) as url:
        told = asyncio.run(restore_into(directory, url, store, replace=replace, role=worker_role(settings)))
    typer.echo(f"Database and store are as they were at {told.created_at}, with {told.objects} objects.")
