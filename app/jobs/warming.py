"""Building templates before anybody needs them: conversions of made-up weights, for the names in the settings."""

from functools import partial
from typing import Annotated

import structlog
from pydantic import Field, TypeAdapter

from app.database import templates
from app.database.conversions import NewConversion
from app.domain.conversion import TargetName
from app.domain.errors import RecastError
from app.jobs import queue
from app.jobs.messages import Progress, TemplateWanted
from app.jobs.patience import patiently
from app.jobs.results import ResultsDirectory
from app.jobs.scratch import scratch_directory
from app.jobs.supervisor import TaskFailed
from app.jobs.tools import Tools
from app.targets.specs import default_options
from app.threads import in_thread

log = structlog.get_logger(__name__)

CHECKPOINT = "rehearsal.pth"

_keys = TypeAdapter(dict[TargetName, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]])


async def warm_templates(tools: Tools, names: tuple[str, ...]) -> None:
    """Queue a conversion for every template that is not known yet; one that fails hinders no other."""
    for name in names:
        try:
            await _warm(tools, name)
        except (TaskFailed, RecastError) as error:
            problem = error.problem if isinstance(error, TaskFailed) else error.problem()
            log.error("template_not_warmed", architecture=name, **problem.model_dump(exclude={"extra"}))


async def _warm(tools: Tools, name: str) -> None:
    with (
        scratch_directory(tools.work_dir, "rehearsal-") as work,
        ResultsDirectory(work / "results") as results,
    ):
        keys = await tools.supervisor.run(
            tools.tasks.rehearsal,
            {
                "architecture": name,
                "plugins_dir": str(tools.plugins_dir) if tools.plugins_dir else None,
                "plugin": None,
                "file": str(results.path / CHECKPOINT),
            },
            limits=tools.inspection_limits,
            work_dir=work,
            answer=_no_answer,
            result=_keys,
        )
        wanted = [
            options
            for options in default_options(keys)
            if not await patiently(partial(_known, tools, name, keys[options.target]))
        ]
        if not wanted:
            return
        checkpoint = await in_thread(partial(results.find, CHECKPOINT))
        stored = await patiently(partial(tools.store.adopt, checkpoint.path, checkpoint.sha256))
    await patiently(partial(queue.register_checkpoint, tools.database, stored, CHECKPOINT, inspect=False))
    for options in wanted:
        new = NewConversion(
            checkpoint_sha256=stored.sha256,
            architecture=name,
            options=options,
            checkpoint_filename=CHECKPOINT,
            dedup_key=f"warm-{keys[options.target]}",
        )
        submitted = await patiently(partial(queue.submit, tools.database, new))
        log.info("template_warming", architecture=name, target=options.target, conversion=submitted.conversion.id)


async def _known(tools: Tools, architecture: str, key: str) -> bool:
    async with tools.database.transaction() as session:
        return await templates.is_known(session, key, architecture)


async def _no_answer(_: Progress | TemplateWanted) -> None:
    return None
