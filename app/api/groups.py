"""Groups: several conversions by one request, watched and canceled as one."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel

from app.api.conversion_intake import IdempotencyKey, submit_request
from app.api.conversion_resource import ConversionResource, conversion_resource
from app.api.conversion_schema import GROUP_BODY
from app.api.parameters import link_next
from app.api.preferences import Patience
from app.api.problems import PROBLEM_RESPONSES
from app.api.readable import ReadableRouter
from app.api.service import Service, ServiceDependency
from app.database import groups as rows
from app.database.conversions import Found
from app.database.tables import Group
from app.domain.conversion import State
from app.domain.errors import InvalidRequest, NotFound
from app.jobs import queue

router = ReadableRouter(prefix="/v1/groups", tags=["groups"], responses=PROBLEM_RESPONSES)

LARGEST_PAGE = 200
POLL_SECONDS = "1"

GroupId = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,100}$", description="grp_ and 32 hexadecimal digits")]


class GroupResource(BaseModel):
    """``state`` is ``running`` until all have finished, then ``succeeded`` where all have, else ``failed``."""

    id: str
    name: str | None
    labels: dict[str, str]
    state: str
    states: dict[str, int]
    """How many conversions are in each state."""
    verdicts: dict[str, int]
    """How many have each verdict."""
    conversions: list[ConversionResource]
    """In the order of the request: for each checkpoint, each target."""
    created_at: datetime
    links: dict[str, str]


class GroupSummary(BaseModel):
    id: str
    name: str | None
    labels: dict[str, str]
    created_at: datetime
    links: dict[str, str]


class GroupList(BaseModel):
    """Newest first."""

    items: list[GroupSummary]
    next_cursor: str | None


@router.post(
    "",
    status_code=202,
    summary="Ask for several conversions",
    openapi_extra=GROUP_BODY,
    response_model=GroupResource,
    responses={200: {"description": "All had finished, or finished while the client waited", "model": GroupResource}},
)
async def create_group(
    request: Request,
    service: ServiceDependency,
    patience: Patience,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """As POST /v1/conversions, with `targets` in the place of `target` and `options`, or `checkpoints` in that of
    `checkpoint`, or both. All of them are accepted or none.
    """
    del idempotency_key  # read in submit_request; declared here for the documentation
    submitted = await submit_request(request, service)
    if not isinstance(submitted, Group):
        raise InvalidRequest("A group needs targets or checkpoints.", hint="One conversion: POST /v1/conversions.")
    return await answer_group(service, submitted.id, patience)


@router.get("", summary="List groups")
async def list_groups(
    *,
    request: Request,
    response: Response,
    service: ServiceDependency,
    cursor: Annotated[
        str | None, Query(pattern="^grp_[0-9a-f]{32}$", description="next_cursor of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 50,
) -> GroupList:
    async with service.database.transaction() as session:
        found = await rows.newest(session, limit + 1, cursor)
    next_cursor = found[limit - 1].id if len(found) > limit else None
    link_next(request, response, next_cursor)
    items = [GroupSummary(**_named(group)) for group in found[:limit]]
    return GroupList(items=items, next_cursor=next_cursor)


@router.get("/{group_id}", summary="Get a group")
async def get_group(
    group_id: GroupId, response: Response, service: ServiceDependency, patience: Patience
) -> GroupResource:
    """With all of its conversions. `Prefer: wait=N` answers when all have finished, after N seconds at the latest."""
    resource = await _waited_for(service, group_id, patience)
    if patience is not None:
        response.headers["Preference-Applied"] = f"wait={patience}"
    if resource.state == State.running:
        response.headers["Retry-After"] = POLL_SECONDS
    return resource


@router.post("/{group_id}/cancel", status_code=202, summary="Cancel a group")
async def cancel_group(group_id: GroupId, service: ServiceDependency) -> GroupResource:
    """Those of its conversions that have not finished."""
    await queue.cancel_group(service.database, group_id)
    return await _resource(service, group_id)


@router.delete("/{group_id}", status_code=204, summary="Delete a group")
async def delete_group(group_id: GroupId, service: ServiceDependency) -> None:
    """Its conversions stay."""
    async with service.database.transaction() as session:
        await rows.remove(session, group_id)


async def answer_group(service: Service, group_id: str, patience: int | None) -> Response:
    """The answer to a request that asked for a group: 202, or 200 when all have finished."""
    resource = await _waited_for(service, group_id, patience)
    headers = {"Location": f"/v1/groups/{group_id}"}
    if patience is not None:
        headers["Preference-Applied"] = f"wait={patience}"
    running = resource.state == State.running
    if running:
        headers["Retry-After"] = POLL_SECONDS
    body = resource.model_dump_json().encode()
    return Response(body, status_code=202 if running else 200, media_type="application/json", headers=headers)


async def _waited_for(service: Service, group_id: str, patience: int | None) -> GroupResource:
    resource = await _resource(service, group_id)
    if patience and resource.state == State.running:
        with suppress(TimeoutError, NotFound):
            async with asyncio.timeout(patience):
                for member in resource.conversions:
                    await service.changes.wait_for(member.id, patience)
        resource = await _resource(service, group_id)
    return resource


async def _resource(service: Service, group_id: str) -> GroupResource:
    async with service.database.transaction() as session:
        group = await rows.find(session, group_id)
        members = await rows.members_with_files(session, group_id)
    return _shown(group, members, service)


def _shown(group: Group, members: Sequence[Found], service: Service) -> GroupResource:
    states = Counter(member.conversion.state for member in members)
    ended = all(state.final for state in states)
    done = State.succeeded if set(states) <= {State.succeeded} else State.failed
    return GroupResource(
        **_named(group),
        state=(done if ended else State.running).value,
        states={state.value: count for state, count in states.items()},
        verdicts=dict(Counter(member.conversion.verdict for member in members if member.conversion.verdict)),
        conversions=[
            conversion_resource(member.conversion, member.files, service.settings.retention) for member in members
        ],
    )


def _named(group: Group) -> dict[str, object]:
    path = f"/v1/groups/{group.id}"
    return {
        "id": group.id,
        "name": group.name,
        "labels": group.labels,
        "created_at": group.created_at,
        "links": {"self": path, "prices": f"{path}/prices", "cancel": f"{path}/cancel"},
    }
