"""Registered architectures: what a client may name in a conversion. Recipes are registered here by clients."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel

from app.api.bodies import json_body, json_model
from app.api.parameters import link_next
from app.api.preferences import Patience
from app.api.problems import PROBLEM_RESPONSES, Told
from app.api.readable import ReadableRouter
from app.api.service import Service, ServiceDependency
from app.database import recipes as stored
from app.database.recipes import Offered, Version
from app.database.tables import Recipe
from app.domain.architecture import ArchitectureDescription as Described
from app.domain.architecture import BrokenPlugin
from app.domain.catalog import Catalog
from app.domain.conversion import TargetName
from app.domain.errors import InvalidRecipe, Problem, UnknownArchitecture
from app.domain.recipe import RecipeRequest, recipe_of
from app.jobs import queue

router = ReadableRouter(prefix="/v1/architectures", tags=["architectures"], responses=PROBLEM_RESPONSES)

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
PATIENCE = 30
"""Seconds for which a recipe's check is waited for where the client does not say."""
EXAMPLE = {
    "name": "vision/crop-net",
    "base": "timm/resnet50",
    "replace": {"fc": [{"Dropout": {"p": 0.2}}, {"Linear": {"out_features": 37}}]},
    "outputs": ["logits"],
}


class ArchitectureSummary(BaseModel):
    """One line of the list; the description has the options and the signature."""

    name: str
    family: str
    library: str
    library_version: str
    summary: str
    targets: tuple[TargetName, ...]


class ArchitectureDescription(Described):
    """An architecture; of a recipe also what it is made of, and its versions."""

    made_of: dict[str, Any] | None
    """The recipe, with all sizes; null for what libraries and plug-ins offer."""
    versions: tuple[str, ...]
    """Digests of the recipe's versions, that which the name means first."""


class RecipeCheck(BaseModel):
    """A recipe that a worker has not built yet."""

    name: str
    digest: str
    state: Literal["checking"] = "checking"


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


@router.post(
    "",
    status_code=201,
    summary="Register a recipe",
    openapi_extra=json_body(RecipeRequest, EXAMPLE),
    response_model=ArchitectureDescription,
    responses={
        200: {"description": "This version is there already", "model": ArchitectureDescription},
        202: {"description": "It is still being checked", "model": RecipeCheck},
    },
)
async def register_recipe(request: Request, service: ServiceDependency, patience: Patience) -> Response:
    """Another head, body or set of outputs for a registered architecture, without code (docs/recipes.md).

    The answer comes when a worker has built it on tensors without data, after 30 seconds, or those of `Prefer: wait=N`,
    at the latest. A name means the version that was registered last; "name@digest" means that version for ever.
    """
    recipe = recipe_of(await json_model(request, RecipeRequest))
    catalog = await service.catalog.common()
    base = await asyncio.to_thread(catalog.get, recipe.base)
    catalog.validate_options(base.name, recipe.options)
    if catalog.find(recipe.name) is not None:
        raise InvalidRecipe(f"{recipe.name!r} is the name of a registered architecture.")
    row, created = await queue.register_recipe(service.database, recipe)
    row = await _checked(service, row, PATIENCE if patience is None else patience)
    location = {"Location": f"/v1/architectures/{recipe.name}"}
    if row.problem is not None:
        raise Told(Problem.kept(row.problem))
    if row.description is None:
        body = RecipeCheck(name=recipe.name, digest=recipe.digest).model_dump_json()
        return Response(body, 202, {**location, "Retry-After": "1"}, "application/json")
    found = _described(await service.catalog.current(), recipe.name, await service.catalog.recipes())
    return Response(found.model_dump_json(), 201 if created else 200, location, "application/json")


@router.get("/{name:path}", summary="Describe an architecture")
async def describe_architecture(name: str, service: ServiceDependency) -> ArchitectureDescription:
    """Options schema, signature and supported targets. An unknown name is a 404 that lists the nearest names."""
    catalog, recipes = await service.catalog.current(), await service.catalog.recipes()
    return await asyncio.to_thread(_described, catalog, name, recipes)


@router.delete("/{name:path}", status_code=204, summary="Delete a recipe")
async def delete_recipe(
    name: Annotated[str, Path(max_length=300, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@-]*$")], service: ServiceDependency
) -> None:
    """All its versions, or that of "name@digest"; what was converted stays. 409 while a conversion needs it."""
    bare, _, digest = name.partition("@")
    if digest:
        entry = (await service.catalog.current()).find(name)
        digest = (entry and entry.recipe) or digest
    async with service.database.transaction() as session:
        await stored.remove(session, bare, digest or None)


def _described(catalog: Catalog, name: str, recipes: Mapping[Version, Offered]) -> ArchitectureDescription:
    """Raises UnknownArchitecture."""
    entry = catalog.get(name)
    offered = None if entry.recipe is None else recipes.get((entry.name, entry.recipe))
    return ArchitectureDescription(
        **{field: getattr(entry, field) for field in type(entry).model_fields},
        made_of=None if offered is None else offered.checked.recipe,
        versions=tuple(version.recipe or "" for version in catalog.versions(entry.name)),
    )


async def _checked(service: Service, row: Recipe, seconds: float) -> Recipe:
    """The version once it was built, or as it is after so many seconds."""
    with service.changes.watch(stored.topic(row.project_id, row.digest)) as changed, suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while row.description is None and row.problem is None:
                changed.clear()
                async with service.database.transaction() as session:
                    found = await stored.find(session, row.project_id, row.name, row.digest)
                if found is None:
                    raise UnknownArchitecture(f"The recipe {row.name!r} was deleted.")
                row = found
                if row.description is None and row.problem is None:
                    await changed.wait()
    return row
