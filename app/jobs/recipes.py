"""Building recipes once, each in a process of its own: whether they fit their base, and which sizes follow from it."""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from pydantic import BaseModel, TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from app.architectures.known import packed
from app.database import recipes
from app.database.tables import Conversion
from app.database.tables import Recipe as Row
from app.domain.architecture import ArchitectureDescription
from app.domain.errors import ChildCrashed, InvalidRecipe, Problem, UnknownArchitecture
from app.domain.layout_file import load
from app.domain.recipe import CheckedRecipe, RecipeRequest
from app.domain.recipe import recipe_of as recipe_told
from app.jobs.consumer import Job
from app.jobs.messages import Progress, TemplateWanted
from app.jobs.patience import patiently
from app.jobs.scratch import scratch_directory
from app.jobs.supervisor import TaskFailed
from app.jobs.tools import Tools

log = structlog.get_logger(__name__)

SECONDS = 60.0
"""For one recipe to be built and run without data."""
MOST_BYTES = 8 << 20
"""Of what its process tells."""


class _Built(BaseModel):
    checked: CheckedRecipe
    description: ArchitectureDescription
    layout: dict[str, Any]


_built = TypeAdapter(_Built)


async def recipe_of(tools: Tools, conversion: Conversion) -> CheckedRecipe | None:
    """The version that a conversion is of; None for one of no recipe. Raises UnknownArchitecture for a deleted one."""
    if conversion.recipe is None:
        return None
    async with tools.database.transaction() as session:
        found = await recipes.checked(session, conversion.project_id, conversion.architecture, conversion.recipe)
    if found is None:
        raise UnknownArchitecture(f"The recipe {conversion.architecture!r} was deleted.")
    return found


async def built_of(tools: Tools, conversion: Conversion) -> str:
    """The architecture that workers must offer for a conversion: a recipe's base, else its own."""
    with suppress(UnknownArchitecture):
        recipe = await recipe_of(tools, conversion)
        return conversion.architecture if recipe is None else recipe.base
    return conversion.architecture


async def build(tools: Tools, job: Job) -> None:
    """Build the recipe that a queue entry stands for; nothing where it was deleted. Raises Postponed."""
    asked = await patiently(partial(_asked, tools, job))
    if asked is None:
        return
    base = str(asked["base"])
    await patiently(partial(tools.offer.make_sure, tools.database, base))
    try:
        built = await _run(tools, asked, base)
        layout = await asyncio.to_thread(_layout, built, job)
        description = _believed(built, job, base, tools.offer.plugin_of(base))
    except TaskFailed as error:
        await patiently(partial(_record, tools, job, error.problem))
    except (ValueError, InvalidRecipe) as error:
        log.warning("child_not_believed", recipe=job.arguments["name"], reason=str(error)[:200])
        await patiently(partial(_record, tools, job, ChildCrashed("The process told of no recipe.").problem()))
    else:
        await patiently(partial(_record, tools, job, built.checked, description, layout))


async def build_stumbled(tools: Tools, job: Job) -> None:
    """End a recipe over which the worker itself stumbled."""
    problem = ChildCrashed("The worker stumbled over this recipe; its log says over what.").problem()
    await _record(tools, job, problem)


async def _run(tools: Tools, asked: dict[str, Any], base: str) -> _Built:
    """Raises TaskFailed."""
    with scratch_directory(tools.work_dir, "recipe-") as work:
        return await tools.supervisor.run(
            tools.tasks.recipe,
            {
                "plugins_dir": str(tools.plugins_dir) if tools.plugins_dir else None,
                "plugin": tools.offer.plugin_of(base),
                "recipe": asked,
            },
            limits=replace(tools.inspection_limits, timeout=SECONDS, message_bytes=MOST_BYTES),
            work_dir=work,
            answer=_no_answer,
            result=_built,
        )


def _layout(built: _Built, job: Job) -> bytes:
    """Raises ValueError for what is no document of this recipe's layout."""
    file = load(json.dumps(built.layout))
    if any(head.architecture != job.arguments["name"] for head in file.heads):
        raise ValueError("The process told of another architecture.")
    return packed(built.layout)


def _believed(built: _Built, job: Job, base: str, plugin: str | None) -> ArchitectureDescription:
    """What a base from a plug-in says of itself is somebody's code's. Raises ValueError, InvalidRecipe."""
    name, digest = job.arguments["name"], job.arguments["digest"]
    sized = recipe_told(RecipeRequest.model_validate(built.checked.recipe))
    if built.checked.digest != digest or (sized.name, sized.base) != (name, base):
        raise ValueError("The process told of another recipe.")
    own = {"name": name, "recipe": digest, "plugin": plugin or None}
    return built.description.model_copy(update=own)


async def _asked(tools: Tools, job: Job) -> dict[str, Any] | None:
    async with tools.database.transaction() as session:
        row = await _row(session, job)
        asked: dict[str, Any] | None = None if row is None else json.loads(row.asked)
        return asked


async def _record(
    tools: Tools,
    job: Job,
    found: CheckedRecipe | Problem,
    description: ArchitectureDescription | None = None,
    layout: bytes | None = None,
) -> None:
    async with tools.database.transaction() as session:
        row = await _row(session, job)
        if row is not None:
            await recipes.record(session, row, found, description, layout)


async def _row(session: AsyncSession, job: Job) -> Row | None:
    told = job.arguments
    row = await recipes.find(session, told["project"], told["name"], told["digest"])
    return row if row is not None and row.queue_job_id == job.entry else None


async def _no_answer(_: Progress | TemplateWanted) -> None:
    return None
