"""Publications of conversions, kept in the conversion's row: queued when it succeeds, and changed under its lock."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import events, webhooks
from app.database.entries import PUBLICATIONS, defer
from app.database.tables import Conversion
from app.domain.conversion import State
from app.domain.publication import Publication
from app.domain.webhook import WebhookEvent


def of(conversion: Conversion) -> list[Publication]:
    return [Publication.kept(one) for one in conversion.publications]


async def begin(session: AsyncSession, conversion: Conversion) -> None:
    """Queue what waited for the end of a locked conversion, which has now come."""
    if conversion.state is State.succeeded:
        await _write(
            session, conversion, [await _queued(session, conversion, at, one) for at, one in _waiting(conversion)]
        )
        return
    skipped = [one.model_copy(update={"state": "skipped"}) for one in of(conversion)]
    await _write(session, conversion, list(enumerate(skipped)))


def forget(conversion: Conversion) -> None:
    """Let all of a locked conversion that runs again wait for its end."""
    fresh = [Publication(uri=one.uri, name=one.name, version=one.version) for one in of(conversion)]
    conversion.publications = [one.model_dump(mode="json") for one in fresh]


async def add(session: AsyncSession, conversion: Conversion, wanted: Sequence[Publication]) -> None:
    """Publish a locked conversion to further places too; to one that it was published to already nothing is sent."""
    known = of(conversion)
    places = [(one.uri, one.name, one.version) for one in known]
    for one in wanted:
        place = (one.uri, one.name, one.version)
        if place not in places:
            known.append(one)
            places.append(place)
        elif known[places.index(place)].state in ("failed", "skipped"):
            known[places.index(place)] = one
    conversion.publications = [one.model_dump(mode="json") for one in known]
    conversion.updated_at = func.now()
    if conversion.state.final:
        await begin(session, conversion)
    await session.flush()
    await session.refresh(conversion)


async def change(session: AsyncSession, conversion: Conversion, at: int, publication: Publication) -> None:
    """Write how far one publication of a locked conversion is; webhooks are told of its end."""
    await _write(session, conversion, [(at, publication)])
    conversion.updated_at = func.now()
    await session.flush()
    await session.refresh(conversion)
    event = {"published": WebhookEvent.published, "failed": WebhookEvent.publish_failed}.get(publication.state)
    if event is not None:
        await webhooks.tell(session, conversion, event)
    await events.announce(session, conversion.id)


async def again(session: AsyncSession, conversion: Conversion, at: int, after: timedelta) -> None:
    """Try one publication of a locked conversion once more, after that time."""
    publication = of(conversion)[at]
    entry = await defer(session, PUBLICATIONS, after, conversion_id=conversion.id, at=str(at))
    tried = publication.model_copy(update={"tries": publication.tries + 1, "queue_job_id": entry})
    await change(session, conversion, at, tried)


def _waiting(conversion: Conversion) -> list[tuple[int, Publication]]:
    return [(at, one) for at, one in enumerate(of(conversion)) if one.state == "waiting"]


async def _queued(session: AsyncSession, conversion: Conversion, at: int, one: Publication) -> tuple[int, Publication]:
    entry = await defer(session, PUBLICATIONS, conversion_id=conversion.id, at=str(at))
    return at, one.model_copy(update={"state": "pending", "queue_job_id": entry})


async def _write(session: AsyncSession, conversion: Conversion, changed: list[tuple[int, Publication]]) -> None:
    rows = list(conversion.publications)
    for at, publication in changed:
        rows[at] = publication.model_dump(mode="json")
    conversion.publications = rows
    await session.flush()
