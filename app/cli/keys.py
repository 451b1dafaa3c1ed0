"""`recast keys` and `recast projects`: who may use the service, and as which project."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.present import print_table
from app.cli.processes import migrated_database
from app.database import keys, projects
from app.database.limits import Limits
from app.database.session import Database
from app.database.tables import ApiKey, Project
from app.settings import Settings

Result = TypeVar("Result")


def any_valid_key(url: str) -> bool:
    return _within(url, keys.any_valid)


def create_key(settings: Settings, name: str, project: str, scopes: Sequence[str], days: float | None) -> None:
    """Print a new key, this once."""

    async def create(session: AsyncSession) -> keys.NewKey:
        owner = await projects.named(session, project)
        expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
        return await keys.create(session, project=owner.id, name=name, scopes=scopes, expires_at=expires_at)

    with migrated_database(settings) as url:
        made = _within(url, create)
    typer.echo(made.secret)
    typer.echo(f"{made.row.id}: this is the only time that the key is shown.", err=True)


def list_keys(settings: Settings) -> None:
    async def listed(session: AsyncSession) -> Sequence[ApiKey]:
        return await keys.listed(session, None)

    with migrated_database(settings) as url:
        rows = _within(url, listed)
    table = Table("id", "begins with", "name", "project", "scopes", "expires", "last used", "state", box=None)
    for row in rows:
        state = "revoked" if row.revoked_at else "valid"
        table.add_row(
            row.id, row.shown, row.name, row.project_id, ",".join(row.scopes), _day(row.expires_at),
            _day(row.last_used_at), state,
        )  # fmt: skip
    print_table(table)


def revoke_key(settings: Settings, id: str) -> None:
    async def revoke(session: AsyncSession) -> None:
        await keys.revoke(session, id, None)

    with migrated_database(settings) as url:
        _within(url, revoke)
    typer.echo(f"{id} is revoked.")


def create_project(settings: Settings, name: str, limits: Limits) -> None:
    async def create(session: AsyncSession) -> Project:
        return await projects.create(session, name, limits.model_dump(exclude_none=True))

    with migrated_database(settings) as url:
        made = _within(url, create)
    typer.echo(made.id)


def _within(url: str, work: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        database = Database(url, 2)
        try:
            async with database.transaction() as session:
                return await work(session)
        finally:
            await database.close()

    return asyncio.run(run())


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
