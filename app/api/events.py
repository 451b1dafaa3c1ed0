"""A conversion's events as server-sent events."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.api.conversion_resource import shown_problem
from app.api.conversions import ConversionId
from app.api.problems import PROBLEM_RESPONSES
from app.api.service import Service, ServiceDependency
from app.database import conversions
from app.database import events as rows
from app.domain.errors import InvalidRequest, Problem

router = APIRouter(prefix="/v1/conversions", tags=["conversions"], responses=PROBLEM_RESPONSES)

EVENTS = "text/event-stream"
KEEP_ALIVE_SECONDS = 15
LONGEST_ID = 18
"""Digits of an event id that a client may send back."""

LastEventId = Annotated[
    str | None, Header(description="Resume after this event", json_schema_extra={"pattern": "^[0-9]{1,18}$"})
]


@router.get(
    "/{conversion_id}/events",
    summary="Follow a conversion",
    response_class=EventSourceResponse,
    responses={204: {"description": "It has finished, and Last-Event-ID names its last event: do not reconnect"}},
)
async def follow_conversion(
    conversion_id: ConversionId,
    service: ServiceDependency,
    last_event_id: LastEventId = None,
) -> Response:
    """Server-sent events `state` and `progress`, whose data has state, stage, progress, attempt, verdict and error.

    Every event so far comes first, or those after `Last-Event-ID`; the stream ends with the conversion.
    """
    after = event_id(last_event_id)
    async with service.database.transaction() as session:
        conversion = await conversions.find(session, conversion_id)
        unseen = await rows.after(session, conversion_id, after, limit=1)
    if conversion.state.final and not unseen:
        return Response(status_code=204)
    return EventSourceResponse(_events(service, conversion_id, after), ping=KEEP_ALIVE_SECONDS, sep="\n")


async def _events(service: Service, conversion_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    async for event in service.changes.follow(conversion_id, after):
        yield ServerSentEvent(json.dumps(_shown(event.data)), event=event.type, id=str(event.id), sep="\n")


def _shown(facts: dict[str, Any]) -> dict[str, Any]:
    error = facts["error"]
    return {**facts, "error": error and shown_problem(Problem.kept(error))}


def event_id(told: str | None) -> int:
    """The id after which a client resumes, 0 for the beginning. Raises InvalidRequest."""
    if told is None or told == "":
        return 0
    if not (told.isascii() and told.isdigit() and len(told) <= LONGEST_ID):
        raise InvalidRequest("Last-Event-ID must be the id of an event of this conversion.")
    return int(told)
