"""What a conversion says while it runs, as text or as server-sent events."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import Header, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import StreamingResponse

from app.api.conversions import ConversionId
from app.api.events import EVENTS, KEEP_ALIVE_SECONDS, LastEventId, event_id
from app.api.problems import PROBLEM_RESPONSES
from app.api.readable import ReadableRouter
from app.api.service import Service, ServiceDependency
from app.database import conversions, logs
from app.database.tables import Conversion, LogPart
from app.domain.errors import Expired, Problem

router = ReadableRouter(prefix="/v1/conversions", tags=["results"], responses=PROBLEM_RESPONSES)

MEDIA_TYPE = "text/plain; charset=utf-8"


@router.get(
    "/{conversion_id}/log",
    summary="Read the log",
    response_class=Response,
    responses={
        200: {
            "description": "What was said so far",
            "content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", EVENTS)},
        }
    },
)
async def get_log(
    conversion_id: ConversionId,
    service: ServiceDependency,
    follow: Annotated[bool, Query(description="true: go on with what is said until the conversion has ended")] = False,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: LastEventId = None,
) -> Response:
    """What the conversion's process printed, when it began which stage, and every exporter's error with its cause.

    Its beginning and its end are kept, without paths of the server and without what looks like a secret. To who accepts
    `text/event-stream` it comes as events `log`, whose data is text as a JSON string, and at the end one event `end`.
    """
    conversion, parts = await _news(service, conversion_id)
    if conversion.expired_at is not None:
        raise Expired(f"The log of this conversion was kept until {conversion.expired_at:%Y-%m-%dT%H:%M:%SZ}.")
    if EVENTS in accept:
        after = next((part for part in parts if part.id == event_id(last_event_id)), None)
        events = _events(service, conversion_id, after)
        return EventSourceResponse(events, ping=KEEP_ALIVE_SECONDS, sep="\n")
    if follow and not conversion.state.final:
        followed = (text async for text, _ in _followed(service, conversion_id))
        return StreamingResponse(followed, media_type=MEDIA_TYPE)
    return Response(logs.shown(parts) + _ending(conversion), media_type=MEDIA_TYPE)


async def _events(service: Service, conversion_id: str, after: LogPart | None) -> AsyncIterator[ServerSentEvent]:
    async for text, last in _followed(service, conversion_id, after):
        yield ServerSentEvent(
            json.dumps(text), event="log" if last else "end", id=str(last.id) if last else None, sep="\n"
        )


async def _followed(
    service: Service, conversion_id: str, previous: LogPart | None = None
) -> AsyncIterator[tuple[str, LogPart | None]]:
    """What is said after ``previous``, each piece with its last part; how the conversion ended comes without one."""
    with service.changes.watch(conversion_id) as changed:
        while True:
            changed.clear()
            conversion, parts = await _news(service, conversion_id, previous)
            if parts:
                yield logs.shown(parts, previous), parts[-1]
                previous = parts[-1]
            if conversion.state.final:
                yield _ending(conversion), None
                return
            await changed.wait()


async def _news(
    service: Service, conversion_id: str, previous: LogPart | None = None
) -> tuple[Conversion, Sequence[LogPart]]:
    async with service.database.transaction() as session:
        conversion = await conversions.find(session, conversion_id)
        return conversion, await logs.after(session, conversion_id, previous.id if previous else 0)


def _ending(conversion: Conversion) -> str:
    if not conversion.state.final:
        return ""
    why = ""
    if conversion.problem is not None:
        problem = Problem.kept(conversion.problem)
        why = f": {problem.code}: {problem.detail}"
    return f"[{conversion.state.value}{why}]\n"
