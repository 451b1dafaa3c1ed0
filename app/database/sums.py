"""Sums of what all workers have ever counted, for metrics."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import MetricSum


@dataclass(frozen=True)
class Sum:
    """One sample of a metric: a number that only grows."""

    name: str
    labels: dict[str, str]
    value: float


async def add(session: AsyncSession, increments: Sequence[Sum]) -> None:
    """Add to the sums; workers that do so at once need the same order of samples, or they would wait for each other."""
    rows = [
        {"name": one.name, "labels": json.dumps(one.labels, sort_keys=True), "value": one.value} for one in increments
    ]
    statement = insert(MetricSum).values(sorted(rows, key=lambda row: (row["name"], row["labels"])))
    added = {"value": MetricSum.value + statement.excluded.value}
    await session.execute(statement.on_conflict_do_update(index_elements=["name", "labels"], set_=added))


async def all_sums(session: AsyncSession) -> list[Sum]:
    """Every sum."""
    return [Sum(row.name, json.loads(row.labels), row.value) for row in await session.scalars(select(MetricSum))]
