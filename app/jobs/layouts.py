"""Finding the layouts of plug-ins' architectures, each plug-in in a child: no client waits for them."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from pydantic import TypeAdapter

from app.architectures.known import packed
from app.database import layouts
from app.database.layouts import Source, source_of
from app.domain.architecture import ArchitectureDescription
from app.domain.layout_file import load
from app.jobs.messages import Progress, TemplateWanted
from app.jobs.patience import patiently
from app.jobs.scratch import scratch_directory
from app.jobs.supervisor import TaskFailed
from app.jobs.tools import Tools

log = structlog.get_logger(__name__)

BUILDS = 200
"""Times that one architecture is built to find out what its options do."""
SECONDS = 120.0
"""For all architectures of a plug-in."""
MOST_BYTES = 32 << 20
"""Of one document."""

_document = TypeAdapter(dict[str, Any])


async def find_layouts(tools: Tools, entries: Iterable[ArchitectureDescription]) -> None:
    """Find and keep what is not known of the catalog's plug-ins; one that fails hinders no other.

    Those of libraries the package brings: there are so many that finding them takes an hour of a processor's time.
    """
    wanted = {source_of(entry): entry.plugin for entry in entries if entry.plugin is not None}
    kept = await patiently(partial(_known, tools, tuple(wanted)))
    for source in sorted(wanted.keys() - kept):
        try:
            content = await _found(tools, source, wanted[source])
            await patiently(partial(_record, tools, source, content))
            log.info("layouts_found", source=source[0], version=source[1], bytes=len(content))
        except TaskFailed as error:
            log.warning("layouts_not_found", source=source[0], **error.problem.model_dump(include={"code", "detail"}))
        except ValueError as error:
            log.warning("layouts_not_found", source=source[0], detail=str(error)[:200])


async def _found(tools: Tools, source: Source, plugin: str) -> bytes:
    """Raises TaskFailed, and ValueError where the child told what is no document of this source's architectures."""
    with scratch_directory(tools.work_dir, "layouts-") as work:
        document = await tools.supervisor.run(
            tools.tasks.layouts,
            {
                "plugins_dir": str(tools.plugins_dir) if tools.plugins_dir else None,
                "plugin": plugin,
                "source": source[0],
                "version": source[1],
                "builds": BUILDS,
            },
            limits=replace(tools.inspection_limits, timeout=SECONDS, message_bytes=MOST_BYTES),
            work_dir=work,
            answer=_no_answer,
            result=_document,
        )
    return await asyncio.to_thread(_checked, document, source)


def _checked(document: dict[str, Any], source: Source) -> bytes:
    file = load(json.dumps(document))
    if (file.source, file.version) != source:
        raise ValueError("The process told of another source.")
    return packed(document)


async def _known(tools: Tools, wanted: tuple[Source, ...]) -> set[Source]:
    async with tools.database.transaction() as session:
        return await layouts.known(session, wanted)


async def _record(tools: Tools, source: Source, content: bytes) -> None:
    async with tools.database.transaction() as session:
        await layouts.record(session, source, content)


async def _no_answer(_: Progress | TemplateWanted) -> None:
    return None
