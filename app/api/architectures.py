"""Registered architectures: what a client may name in a conversion."""

import asyncio
from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import BaseModel

from app.api.parameters import link_next
from app.api.problems import PROBLEM_RESPONSES
from app.api.readable import ReadableRouter
from app.api.service import ServiceDependency
from app.domain.architecture import ArchitectureDescription, BrokenPlugin
from app.domain.conversion import TargetName

router = ReadableRouter(prefix="/v1/architectures", tags=["architectures"], responses=PROBLEM_RESPONSES)

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000


class ArchitectureSummary(BaseModel):
    """One line of the list; the description has the options and the signature."""

    name: str
    family: str
    library: str
    library_version: str
    summary: str
    targets: tuple[TargetName, ...]


class ArchitectureList(BaseModel):
    items: list[ArchitectureSummary]
    next_cursor: str | None
    total: int
    """Entries that match, on all pages."""
    broken: tuple[BrokenPlugin, ...]
    """Plug-ins that could not be loaded, and why."""


@router.get("", summary="List architectures")
async def list_architectures(
    *,
    request: Request,
    response: Response,
    service: ServiceDependency,
    query: Annotated[str, Query(max_length=200, description="Words that name, family or summary must hold")] = "",
    family: Annotated[str | None, Query(max_length=200)] = None,
    cursor: Annotated[str | None, Query(max_length=300, description="next_cursor of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = DEFAULT_PAGE,
) -> ArchitectureList:
    """Ordered by name. Every word of the query must occur, whatever the case."""
    catalog = await service.catalog.current()
    found = sorted(catalog.search(query, family), key=lambda entry: entry.name)
    rest = [entry for entry in found if cursor is None or entry.name > cursor]
    page = rest[:limit]
    next_cursor = page[-1].name if len(rest) > limit else None
    link_next(request, response, next_cursor)
    return ArchitectureList(
        items=[
            ArchitectureSummary.model_validate(entry.model_dump(include=set(ArchitectureSummary.model_fields)))
            for entry in page
        ],
        next_cursor=next_cursor,
        total=len(found),
        broken=catalog.broken,
    )


@router.get("/{name:path}", summary="Describe an architecture")
async def describe_architecture(name: str, service: ServiceDependency) -> ArchitectureDescription:
    """Options schema, signature and supported targets. An unknown name is a 404 that lists the nearest names."""
    catalog = await service.catalog.current()
    return await asyncio.to_thread(catalog.get, name)
