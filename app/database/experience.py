"""What finished conversions tell of the next one of an architecture: how long it takes, whether a template is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Float, case, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import Conversion, Template
from app.domain.conversion import State

LOOKED_AT = 20
"""Conversions of which the seconds are averaged, the newest first."""


@dataclass(frozen=True)
class Experience:
    """``seconds``: of a conversion of the kind that the next one is (with a template, or without); None: none yet."""

    template: bool
    seconds: float | None


async def of(
    session: AsyncSession,
    architecture: str,
    architecture_options: Mapping[str, Any],
    target: str,
    options: Mapping[str, Any],
) -> Experience:
    """``options``: all target options, defaults filled in. Seconds are those of the session's project."""
    mine = (
        Conversion.architecture == architecture,
        Conversion.target == target,
        Conversion.architecture_options == dict(architecture_options),
        Conversion.state == State.succeeded,
    )
    key = Conversion.template["key"].astext
    ready = (
        select(Template.key)
        .join(Conversion, key == Template.key)
        .where(*mine, Conversion.options == dict(options), Template.state == "ready")
    )
    template = await session.scalar(ready.limit(1)) is not None
    reused = Conversion.template["state"].astext == "reused"
    took = func.extract("epoch", Conversion.finished_at - Conversion.started_at)
    newest = (
        select(cast(took, Float).label("seconds"))
        .where(*mine, reused if template else case((reused, False), else_=True))
        .order_by(Conversion.id.desc())
        .limit(LOOKED_AT)
        .subquery()
    )
    return Experience(template, await session.scalar(select(func.avg(newest.c.seconds))))
