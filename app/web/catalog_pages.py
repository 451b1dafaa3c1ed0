"""The pages of what conversions are made of: architectures and checkpoints."""

from typing import Annotated

from fastapi import Query, Request
from starlette.responses import HTMLResponse

from app.api.checkpoints import CURSOR, Sha256, checkpoint_resource, cursor_of, place_of
from app.api.principals import Acting
from app.api.readable import ReadableRouter
from app.api.service import ServiceDependency
from app.database import checkpoints, conversions
from app.database.checkpoints import CheckpointFilter
from app.database.conversions import Filter
from app.delivery.report_page import axis_contract, input_contract
from app.web.rendering import page

router = ReadableRouter(include_in_schema=False)

LISTED = 50
CATALOG_PAGE = 60
LATEST = 5


@router.get("/architectures")
async def architectures_page(
    service: ServiceDependency,
    acting: Acting,
    query: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str, Query(max_length=300)] = "",
) -> HTMLResponse:
    found = sorted((await service.catalog.current()).search(query, None), key=lambda entry: entry.name)
    rest = [entry for entry in found if entry.name > after]
    return page(
        "architectures.html",
        acting=acting,
        entries=rest[:CATALOG_PAGE],
        total=len(found),
        query=query,
        next=rest[CATALOG_PAGE - 1].name if len(rest) > CATALOG_PAGE else None,
    )


@router.get("/architectures/{name:path}")
async def architecture_page(name: str, request: Request, service: ServiceDependency, acting: Acting) -> HTMLResponse:
    """One architecture: what it takes and yields, and its options."""
    entry = (await service.catalog.current()).get(name)
    async with service.database.transaction() as session:
        made = await conversions.newest(session, Filter(architecture=entry.name), LATEST)
    contract, axes = input_contract(entry.signature), axis_contract(entry.signature)
    return page(
        "architecture.html",
        acting=acting,
        entry=entry,
        contract=contract,
        axes=axes,
        conversions=made,
        address=str(request.base_url).rstrip("/"),
    )


@router.get("/checkpoints")
async def checkpoints_page(
    service: ServiceDependency, acting: Acting, cursor: Annotated[str | None, Query(pattern=CURSOR)] = None
) -> HTMLResponse:
    wanted = CheckpointFilter(before=None if cursor is None else place_of(cursor))
    async with service.database.transaction() as session:
        found = await checkpoints.newest_described(session, wanted, LISTED + 1)
    last = found[LISTED - 1] if len(found) > LISTED else None
    older = last and cursor_of(last.sha256, last.created_at)
    return page("checkpoints.html", acting=acting, rows=found[:LISTED], older=older)


@router.get("/checkpoints/{sha256}")
async def checkpoint_page(sha256: Sha256, service: ServiceDependency, acting: Acting) -> HTMLResponse:
    async with service.database.transaction() as session:
        row = await checkpoints.owner(session, sha256)
        made = await conversions.newest(session, Filter(checkpoint_sha256=sha256), LISTED)
    return page("checkpoint.html", acting=acting, checkpoint=checkpoint_resource(row), conversions=made)
