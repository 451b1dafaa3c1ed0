"""Making the catalog of architectures: in children, one for the libraries and one for each plug-in.

A plug-in is somebody's code: what it does when it is imported (raise, hang, exit, crash, say what is not so) costs its
own architectures and nothing else.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import structlog
from pydantic import TypeAdapter

from app.architectures.plugin_catalog import Described, assembled, believed, broken
from app.architectures.plugin_files import FoundPlugin, find_plugins, state_of
from app.database import catalogs
from app.domain.architecture import ArchitectureDescription
from app.jobs.layouts import find_layouts
from app.jobs.messages import Progress, TemplateWanted
from app.jobs.patience import patiently
from app.jobs.scratch import scratch_directory
from app.jobs.supervisor import TaskFailed
from app.jobs.tools import Tools
from app.targets.abilities import abilities
from app.targets.specs import installed
from app.tasks import first
from app.threads import in_thread

log = structlog.get_logger(__name__)

RETRY_AFTER = 60.0
"""Seconds after which a failed catalog is tried again; what the api shows meanwhile is the last one."""
LOOK_AGAIN = 10.0
"""Seconds after which the plug-ins directory is looked at again for changes."""
PLUGIN_SECONDS = 60.0
"""For one plug-in to be imported and described."""
SOON = 1.0
"""Seconds after which it is told which plug-ins have not been described yet."""
PLUGIN_LATE = 10.0
"""Seconds more after which the service is ready without them."""
AT_ONCE = 2
"""Plug-ins that are described at the same time."""

Entries = tuple[ArchitectureDescription, ...]
Trying = Mapping[str, asyncio.Task[Described]]
"""Plug-ins by name, each with its description to come."""

_entries = TypeAdapter(tuple[ArchitectureDescription, ...])


async def publish_catalog(tools: Tools) -> None:
    """Publish it now, and again whenever the plug-ins directory changes; a failure is logged and tried again."""
    async with asyncio.TaskGroup() as group:
        await _publish_changes(tools, group)


async def _publish_changes(tools: Tools, group: asyncio.TaskGroup) -> None:
    known = None
    while True:
        try:
            state = await in_thread(partial(state_of, tools.plugins_dir))
            if state != known:
                described = await _describe_all(tools)
                known = state
                group.create_task(find_layouts(tools, described.entries))
            await patiently(partial(tools.offer.renew, tools.database, tools.work_dir.name))
        except TaskFailed as error:
            log.error("catalog_failed", **error.problem.model_dump(exclude={"extra"}))
            tools.offer.give_up()
            if known is None:  # what was known ahead does not hold where nothing can be described
                await patiently(partial(_withdraw, tools))
            await asyncio.sleep(RETRY_AFTER)
        except OSError as error:
            log.error("catalog_failed", detail=str(error))
            tools.offer.give_up()
            await asyncio.sleep(RETRY_AFTER)
        await asyncio.sleep(LOOK_AGAIN)


async def _describe_all(tools: Tools) -> catalogs.Described:
    """Publish what the libraries offer, and the plug-ins, as they are described; a plug-in may take its time.

    What the libraries offer is known ahead as a rule: then nobody waits until they have told it themselves.
    Raises TaskFailed.
    """
    found = await in_thread(partial(find_plugins, tools.plugins_dir))
    slots = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as group:
        trying = {plugin.name: group.create_task(_tried(tools, plugin, slots)) for plugin in found}
        describing = group.create_task(_libraries(tools))
        known = await in_thread(tools.tasks.known_catalog)
        if known is not None:
            await _publish_known(tools, tuple(map(installed, known)), trying, describing)
        libraries = await describing
        if not isinstance(libraries, TaskFailed):
            for seconds, late in ((SOON, False), (PLUGIN_LATE, True)):
                left = await _left(trying, seconds)
                if left:
                    await _publish(tools, libraries, trying, **{"late" if late else "pending": left})
    if isinstance(libraries, TaskFailed):
        raise libraries
    described = await _publish(tools, libraries, trying)
    for plugin in described.broken:
        log.error("plugin_broken", plugin=plugin.name, error=plugin.error)
    return described


async def _publish_known(
    tools: Tools, libraries: Entries, trying: Trying, describing: asyncio.Task[Entries | TaskFailed]
) -> None:
    """Publish what is known of the libraries, and with it the plug-ins, where all are described before these are."""
    await _publish(tools, libraries, trying, pending=await _left(trying, 0))
    if trying:
        await first(asyncio.wait(trying.values()), asyncio.wait([describing]))
        if not await _left(trying, 0):
            await _publish(tools, libraries, trying)


async def _libraries(tools: Tools) -> Entries | TaskFailed:
    """The failure is given and not raised, so that it ends no plug-in's description."""
    try:
        return await _describe(tools, None)
    except TaskFailed as error:
        return error


async def _left(trying: Trying, seconds: float) -> tuple[str, ...]:
    """Names of the plug-ins that are not described after so long."""
    if trying:
        await asyncio.wait(trying.values(), timeout=seconds)
    return tuple(name for name, task in trying.items() if not task.done())


async def _publish(
    tools: Tools,
    libraries: Entries,
    trying: Trying,
    *,
    pending: tuple[str, ...] = (),
    late: tuple[str, ...] = (),
) -> catalogs.Described:
    entries, failed = assembled(libraries, (task.result() for task in trying.values() if task.done()))
    able = tuple(sorted(abilities()))
    rest = json.dumps([[plugin.model_dump() for plugin in failed], pending, late, able], sort_keys=True)
    digest = hashlib.sha256(catalogs.as_json(entries) + rest.encode()).hexdigest()
    described = catalogs.Described(digest, entries, failed, pending, late, able)

    async def store() -> None:
        async with tools.database.transaction() as session:
            await catalogs.publish(session, described, tools.work_dir.name)

    await patiently(store)
    tools.offer.change(described)
    counts = {"architectures": len(entries), "broken": len(failed), "undescribed": [*pending, *late]}
    log.info("catalog_published", **counts, digest=digest)
    return described


async def _withdraw(tools: Tools) -> None:
    async with tools.database.transaction() as session:
        await catalogs.withdraw(session, tools.work_dir.name)


async def _describe(tools: Tools, plugin: str | None) -> Entries:
    """Raises TaskFailed."""
    limits = tools.inspection_limits
    with scratch_directory(tools.work_dir, "catalog-") as work:
        return await tools.supervisor.run(
            tools.tasks.catalog,
            {"plugins_dir": str(tools.plugins_dir) if tools.plugins_dir else None, "plugin": plugin},
            limits=replace(limits, timeout=min(limits.timeout, PLUGIN_SECONDS)) if plugin else limits,
            work_dir=work,
            answer=_no_answer,
            result=_entries,
        )


async def _tried(tools: Tools, plugin: FoundPlugin, slots: asyncio.Semaphore) -> Described:
    async with slots:
        try:
            entries = await _describe(tools, plugin.name)
        except TaskFailed as error:
            return await in_thread(partial(broken, plugin, error.problem.detail))
    return await in_thread(partial(believed, plugin, entries))


async def _no_answer(_: Progress | TemplateWanted) -> None:
    return None
