"""Conversions: asking for one, following it, and ending it."""

import hashlib
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import json_body, json_model
from app.api.conversion_intake import IdempotencyKey, refuse_places, submit_request
from app.api.conversion_request import MOST_PLACES, checked_places
from app.api.conversion_resource import ConversionResource, conversion_resource, path_of
from app.api.conversion_schema import CONVERSION_BODY
from app.api.groups import answer_group
from app.api.labels import LabelQuery, labels_of
from app.api.parameters import Time, link_next
from app.api.preferences import Patience
from app.api.problems import PROBLEM_RESPONSES, Told
from app.api.ranges import matches
from app.api.readable import ReadableRouter
from app.api.service import Service, ServiceDependency
from app.database import conversions as rows
from app.database.conversions import Filter, Found
from app.database.tables import Conversion, Group
from app.domain.conversion import State, TargetName
from app.domain.errors import InvalidRequest, Problem
from app.domain.report import Verdict
from app.domain.versions import service_version
from app.jobs import queue

router = ReadableRouter(prefix="/v1/conversions", tags=["conversions"], responses=PROBLEM_RESPONSES)

POLL_SECONDS = "1"
LARGEST_PAGE = 200
WITHOUT_NUL = r"^[^\x00]*$"
"""What PostgreSQL can compare with a text."""

ConversionId = Annotated[str, Path(description="cnv_ and 32 hexadecimal digits")]


class ConversionList(BaseModel):
    """Newest first."""

    items: list[ConversionResource]
    next_cursor: str | None
    total: int | None
    """Conversions that match, on all pages; null for more than 10,000."""


@router.post(
    "",
    status_code=202,
    summary="Ask for a conversion",
    openapi_extra=CONVERSION_BODY,
    response_model=ConversionResource,
    responses={
        200: {"description": "An earlier conversion answers this request", "model": ConversionResource},
        201: {"description": "Finished while the client waited", "model": ConversionResource},
    },
)
async def create_conversion(
    request: Request,
    service: ServiceDependency,
    patience: Patience,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Send JSON that names an uploaded checkpoint, or one form with the file itself.

    202 with `Location` and `Retry-After` while it runs. With `Prefer: wait=N` the answer comes when the conversion has
    finished: 201, or 200 when an earlier conversion is the answer (the same `Idempotency-Key`, or the same inputs
    without `force`). A conversion that failed while the client waited is answered with its problem, whose `conversion`
    is the resource.

    With `targets` or `checkpoints` the answer is that of POST /v1/groups.
    """
    del idempotency_key  # read in submit_request; declared here for the documentation
    submitted = await submit_request(request, service)
    if isinstance(submitted, Group):
        return await answer_group(service, submitted.id, patience)
    conversion = submitted.conversion
    if patience and not conversion.state.final:
        conversion = await service.changes.wait_for(conversion.id, patience)
    resource = await _resource(service, conversion)
    path = path_of(conversion.id)
    headers = {"Location": path, "ETag": etag_of(conversion)}
    if patience is not None:
        headers["Preference-Applied"] = f"wait={patience}"
    if not conversion.state.final:
        return _answer(resource, 202, {**headers, "Retry-After": POLL_SECONDS})
    if patience is not None and conversion.problem is not None:
        raise Told(
            Problem.kept(conversion.problem),
            id=conversion.id,
            state=conversion.state.value,
            location=path,
            conversion=resource.model_dump(mode="json"),
        )
    return _answer(resource, 201 if submitted.created else 200, headers)


@router.get("", summary="List conversions")
async def list_conversions(
    *,
    request: Request,
    response: Response,
    service: ServiceDependency,
    state: Annotated[State | None, Query(description="Only those in this state")] = None,
    status: Annotated[State | None, Query(description="The same as state")] = None,
    architecture: Annotated[str | None, Query(max_length=300, pattern=WITHOUT_NUL)] = None,
    target: TargetName | None = None,
    checkpoint: Annotated[str | None, Query(pattern="^[0-9a-fA-F]{64}$")] = None,
    family: Annotated[str | None, Query(max_length=200, description="Family of architectures")] = None,
    verdict: Verdict | None = None,
    label: LabelQuery = None,
    created_after: Annotated[Time | None, Query()] = None,
    created_before: Annotated[Time | None, Query()] = None,
    cursor: Annotated[
        str | None, Query(pattern="^cnv_[0-9a-f]{32}$", description="next_cursor of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 50,
) -> ConversionList:
    """Newest first. A label filter may be given several times; all of them must match."""
    if state is not None and status is not None and state is not status:
        raise InvalidRequest("state and status name different states.", hint="They are two names of one filter.")
    wanted = Filter(
        state=state or status,
        architecture=architecture,
        architectures=None if family is None else await _family(service, family),
        target=target,
        checkpoint_sha256=checkpoint and checkpoint.lower(),
        verdict=verdict and verdict.value,
        labels=labels_of(label or ()),
        created_after=created_after,
        created_before=created_before,
        before=cursor,
    )
    async with service.database.reading() as session:
        found = await rows.newest_with_files(session, wanted, limit + 1)
        total = await rows.count(session, wanted)
    page = found[:limit]
    items = [_shown(service, one) for one in page]
    next_cursor = page[-1].conversion.id if len(found) > limit else None
    link_next(request, response, next_cursor)
    return ConversionList(items=items, next_cursor=next_cursor, total=total)


@router.get(
    "/{conversion_id}",
    summary="Get a conversion",
    response_model=ConversionResource,
    responses={304: {"description": "The client's copy is current"}},
)
async def get_conversion(
    conversion_id: ConversionId, request: Request, service: ServiceDependency, patience: Patience
) -> Response:
    """State, stage, progress, verdict and links. `ETag` and `If-None-Match` make polling cheap.

    With `Prefer: wait=N` the answer comes when the conversion has finished, after N seconds at the latest.
    """
    found = await _find(service, conversion_id)
    if patience and not found.conversion.state.final:
        await service.changes.wait_for(conversion_id, patience)
        found = await _find(service, conversion_id)
    headers = {"ETag": etag_of(found.conversion)}
    if not found.conversion.state.final:
        headers["Retry-After"] = POLL_SECONDS
    if patience is not None:
        headers["Preference-Applied"] = f"wait={patience}"
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return _answer(_shown(service, found), 200, headers)


@router.post("/{conversion_id}/cancel", status_code=202, summary="Cancel a conversion")
async def cancel_conversion(conversion_id: ConversionId, service: ServiceDependency) -> ConversionResource:
    """A queued one ends at once, a running one within two seconds; 409 when it has finished."""
    return await _resource(service, await queue.cancel(service.database, conversion_id))


@router.post("/{conversion_id}/retry", status_code=202, summary="Retry a conversion")
async def retry_conversion(
    conversion_id: ConversionId, response: Response, service: ServiceDependency
) -> ConversionResource:
    """Queue one again that failed, timed out or was canceled; 409 otherwise."""
    conversion = await queue.retry(service.database, conversion_id)
    response.headers["Location"] = path_of(conversion_id)
    response.headers["Retry-After"] = POLL_SECONDS
    return await _resource(service, conversion)


class PublishRequest(BaseModel):
    """Where to put the files: URIs, or objects of ``uri``, ``name`` and ``version``."""

    model_config = ConfigDict(extra="forbid")

    publish: Annotated[list[Any], Field(min_length=1, max_length=MOST_PLACES)]


@router.post(
    "/{conversion_id}/publish",
    status_code=202,
    summary="Publish a conversion",
    openapi_extra=json_body(PublishRequest, {"publish": ["s3://models/production/"]}),
)
async def publish_conversion(
    conversion_id: ConversionId, request: Request, service: ServiceDependency
) -> ConversionResource:
    """To further places, once it has succeeded; to one where publishing failed again. 409 where it did not succeed."""
    await _find(service, conversion_id)
    places = checked_places((await json_model(request, PublishRequest)).publish)
    await refuse_places(service, places)
    return await _resource(service, await queue.publish(service.database, conversion_id, places))


@router.delete("/{conversion_id}", status_code=204, summary="Delete a conversion")
async def delete_conversion(conversion_id: ConversionId, service: ServiceDependency) -> None:
    """With its files, once nothing else refers to them. 409 while it has not finished: cancel it first."""
    async with service.database.transaction() as session:
        await rows.remove(session, conversion_id)


async def _resource(service: Service, row: Conversion) -> ConversionResource:
    return _shown(service, await _find(service, row.id))


async def _find(service: Service, conversion_id: str) -> Found:
    async with service.database.reading() as session:
        return await rows.find_with_files(session, conversion_id)


def _shown(service: Service, found: Found) -> ConversionResource:
    return conversion_resource(found.conversion, found.files, service.settings.retention)


async def _family(service: Service, family: str) -> list[str]:
    """Names of the architectures of a family."""
    return [entry.name for entry in (await service.catalog.current()).search("", family)]


def etag_of(row: Conversion) -> str:
    """Changes whenever the resource does: with the row, and with the service that shows it."""
    version = f"{row.id} {row.updated_at.timestamp()} {row.expired_at} {service_version()}"
    return f'"{hashlib.sha256(version.encode()).hexdigest()[:32]}"'


def _answer(resource: ConversionResource, status: int, headers: dict[str, Any]) -> Response:
    body = resource.model_dump_json().encode()
    return Response(body, status_code=status, media_type="application/json", headers=headers)
