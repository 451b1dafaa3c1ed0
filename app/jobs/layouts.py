"""Finding the layouts of architectures that the package does not bring, each in a child: no client waits for them."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
from pydantic import TypeAdapter

from app.architectures.known import known_layouts, packed
from app.database import layouts
from app.database.layouts import Source, source_of
from app.domain.architecture import ArchitectureDescription
from app.domain.layout_file import load
from app.jobs.messages import Progress, TemplateWanted
from app.jobs.patience import patiently
from app.jobs.supervisor import TaskFailed
from app.jobs.tools import Tools
from app.threads import in_thread

log = structlog.get_logger(__name__)

PLUGIN_BUILDS, LIBRARY_BUILDS = 200, 12
"""Times that one architecture is built to find out what its options do."""
PLUGIN_SECONDS, LIBRARY_SECONDS = 120.0, 3600.0
MOST_BYTES = 32 << 20
"""Of one document."""

_document = TypeAdapter(dict[str, Any])


async def find_layouts(tools: Tools, entries: Iterable[ArchitectureDescription]) -> None:
    """Find and keep what is not known of the catalog's plug-ins and libraries; one that fails hinders no other."""
    wanted = {source_of(entry): entry for entry in entries}
    brought = {(file.source, file.version) for file in await in_thread(known_layouts)}
    kept = await patiently(partial(_known, tools, tuple(wanted)))
    for source in sorted(wanted.keys() - brought - kept, key=lambda source: wanted[source].plugin is None):
        try:
            content = await _found(tools, source, wanted[source])
            await patiently(partial(_record, tools, source, content))
            log.info("layouts_found", source=source[0], version=source[1], bytes=len(content))
        except TaskFailed as error:
            log.warning("layouts_not_found", source=source[0], **error.problem.model_dump(include={"code", "detail"}))
        except ValueError as error:
            log.warning("layouts_not_found", source=source[0], detail=str(error)[:200])


async def _found(tools: Tools, source: Source, entry: ArchitectureDescription) -> bytes:
    """Raises TaskFailed, and ValueError where the child told what is no document of this source's architectures."""
    plugin = entry.plugin is not None
    with TemporaryDirectory(dir=tools.work_dir, prefix="layouts-", ignore_cleanup_errors=True) as work:
        document = await tools.supervisor.run(
            tools.tasks.layouts,
            {
                "plugins_dir": str(tools.plugins_dir) if tools.plugins_dir else None,
                "plugin": entry.plugin,
                "library": entry.library,
                "source": source[0],
                "version": source[1],
                "builds": PLUGIN_BUILDS if plugin else LIBRARY_BUILDS,
            },
            limits=replace(
                tools.inspection_limits,
                timeout=PLUGIN_SECONDS if plugin else LIBRARY_SECONDS,
                message_bytes=MOST_BYTES,
            ),
            work_dir=Path(work),
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
