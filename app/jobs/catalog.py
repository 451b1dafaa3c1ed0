"""Making the catalog of architectures: in a child, because plug-ins and torch are imported for it."""

import asyncio
import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from pydantic import TypeAdapter

from app.database import catalogs
from app.domain.architecture import ArchitectureDescription
from app.jobs.messages import Progress, TemplateWanted
from app.jobs.patience import patiently
from app.jobs.supervisor import TaskFailed
from app.jobs.tools import Tools

log = structlog.get_logger(__name__)

RETRY_AFTER = 60.0
"""Seconds after which a failed catalog is tried again; what the api shows meanwhile is the last one."""

_entries = TypeAdapter(tuple[ArchitectureDescription, ...])


async def publish_catalog(tools: Tools) -> None:
    """Make the catalog once and publish it; a failure is logged and tried again."""
    while True:
        try:
            await _publish(tools)
        except TaskFailed as error:
            log.error("catalog_failed", **error.problem.model_dump(exclude={"extra"}))
            await asyncio.sleep(RETRY_AFTER)
        else:
            return


async def _publish(tools: Tools) -> None:
    with TemporaryDirectory(dir=tools.work_dir, prefix="catalog-") as work:
        entries = await tools.supervisor.run(
            tools.tasks.catalog,
            str(tools.plugins_dir) if tools.plugins_dir else None,
            limits=tools.inspection_limits,
            work_dir=Path(work),
            answer=_no_answer,
            result=_entries,
        )
    content = _entries.dump_python(entries, mode="json")
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    async def store() -> None:
        async with tools.database.transaction() as session:
            await catalogs.publish(session, digest, entries)

    await patiently(store)
    log.info("catalog_published", architectures=len(entries), digest=digest)


async def _no_answer(_: Progress | TemplateWanted) -> None:
    return None
