"""Keys and projects made as `recast keys` and `recast projects` make them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from app.database import keys, projects
from app.database.limits import Limits
from app.database.session import Database


def _run(make: Callable[[], Coroutine[Any, Any, str]]) -> str:
    """In a thread: the caller's may have a loop of its own, as with a browser."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(make())).result()


def make_key(url: str, project: str, scopes: Sequence[str], expires_at: datetime | None = None) -> str:
    async def make() -> str:
        database = Database(url)
        try:
            async with database.transaction() as session:
                made = await keys.create(session, project=project, name="test", scopes=scopes, expires_at=expires_at)
            return made.secret
        finally:
            await database.close()

    return _run(make)


def make_project(url: str, name: str, **limits: int) -> str:
    async def make() -> str:
        database = Database(url)
        try:
            async with database.transaction() as session:
                return (await projects.create(session, name, Limits(**limits).model_dump(exclude_none=True))).id
        finally:
            await database.close()

    return _run(make)
