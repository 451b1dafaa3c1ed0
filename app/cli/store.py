"""The object store as its database sees it, for the commands that look after it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from app.cli.failure import UsageError
from app.cli.processes import migrated_database
from app.database.owned_store import OwnedStore, claim
from app.database.session import Database
from app.settings import Settings
from app.storage.objects import OwnableStore
from app.storage.opening import open_store

Result = TypeVar("Result")


def check_store(settings: Settings) -> None:
    """Write to it and read it as the service does. Raises Unavailable in words."""

    async def check(store: OwnableStore, database: Database) -> None:
        await OwnedStore(store, database).check()

    _with_store(settings, check, by_worker=True)


def claim_store(settings: Settings, take_over: bool) -> None:
    """Make the store that the settings name the database's own. Raises UsageError where it is another's."""

    async def claimed(store: OwnableStore, database: Database) -> tuple[str, str]:
        return await claim(store, database, take_over=take_over)

    owner, own = _with_store(settings, claimed)
    if owner != own:
        raise UsageError(
            f"{settings.objects_location} belongs to another database, {owner!r}.",
            hint="With --take-over it is this one's; what only that database knows of is then deleted from it.",
        )
    typer.echo(f"{settings.objects_location} is the store of this database.")


def _with_store(
    settings: Settings, work: Callable[[OwnableStore, Database], Awaitable[Result]], *, by_worker: bool = False
) -> Result:
    """``by_worker``: it is nothing that the role of workers may not do."""

    async def run(url: str) -> Result:
        database = Database(url, 2)
        try:
            return await work(open_store(settings.objects_location, settings.data_dir / "scratch"), database)
        finally:
            await database.close()

    with migrated_database(settings, by_others=by_worker) as url:
        return asyncio.run(run(url))
