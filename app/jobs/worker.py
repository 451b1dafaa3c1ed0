"""The worker: takes jobs from the queue, runs each in a child process, rescues what other workers lost, cleans up."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial

import structlog

from app.database import deaths, workers
from app.database.entries import DELIVERIES, PUBLICATIONS, RECIPES, TRANSFERS
from app.database.owned_store import OwnedStore
from app.database.session import Database
from app.jobs import deliveries, fetching, metrics, publications, queue, recipes, running
from app.jobs.admission import Admission, default_budget
from app.jobs.catalog import publish_catalog
from app.jobs.confinement import Confined, Limits
from app.jobs.consumer import HAND_BACK, Consumer
from app.jobs.events import Changes
from app.jobs.metrics import Publisher
from app.jobs.patience import DatabaseAway, away, patiently
from app.jobs.queue import CONVERSIONS, INSPECTIONS
from app.jobs.registration import LEAVING, Forgotten, Registration, registered
from app.jobs.rescue import Rescuer
from app.jobs.retention import clean_up
from app.jobs.signing import Signing
from app.jobs.supervisor import Supervisor
from app.jobs.tools import TASKS, Tasks, Tools
from app.jobs.warming import warm_templates
from app.jobs.workroom import abandoned_rooms, work_room
from app.remotes.egress import Egress
from app.remotes.grants import Grants
from app.settings import Settings
from app.storage.opening import open_store

log = structlog.get_logger(__name__)

CLEAN_UP_INTERVAL = 600.0
METRICS_INTERVAL = 5.0
INSPECTIONS_AT_ONCE = 2
RECIPES_AT_ONCE = 1
DELIVERIES_AT_ONCE = 8
TRANSFERS_AT_ONCE = 4
PUBLICATIONS_AT_ONCE = 2
RESCUES = 3
"""How often in the time after which a silent worker counts as dead others look for such."""
LAST_WORK = 3 * LEAVING + HAND_BACK
"""Seconds beyond the drain time after which a worker that was told to stop ends, whatever it waits for."""


async def run_worker(
    settings: Settings,
    database_url: str,
    stop: asyncio.Event,
    tasks: Tasks = TASKS,
    supervisor: str | None = None,
) -> None:
    """Work until ``stop`` is set, then drain: running jobs get ``drain_timeout`` seconds, the rest is handed back.

    The database at ``database_url`` (libpq) is migrated already. It may go away at any time. ``supervisor``: the run of
    `recast serve` that keeps this worker running.
    """
    working = asyncio.create_task(_work(settings, database_url, stop, tasks, supervisor))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([working], timeout=settings.drain_timeout + LAST_WORK)
        if not working.done():
            log.error("worker_ends_undrained", after=settings.drain_timeout + LAST_WORK)
    finally:
        stopping.cancel()
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


async def _work(
    settings: Settings, database_url: str, stop: asyncio.Event, tasks: Tasks, supervisor: str | None
) -> None:
    async with _tools(settings, database_url, tasks) as tools:
        describing: tuple[Coroutine[None, None, None], ...] = ()
        if _converts(settings):
            await tools.supervisor.warm_up()
            describing = (
                publish_catalog(tools),
                warm_templates(tools, settings.warm_templates),
                _note_idle_deaths(tools),
            )
        log.info("worker_started", worker=tools.name, children=settings.children, queues=settings.worker_queues)
        clean = partial(
            clean_up,
            tools.database,
            tools.store,
            retention=timedelta(days=settings.retention_days) if settings.retention_days else None,
            orphan_grace=timedelta(seconds=settings.orphan_grace),
        )
        publisher = Publisher(tools.database)
        async with _background(
            _every(CLEAN_UP_INTERVAL, clean),
            *describing,
            _every(METRICS_INTERVAL, publisher.publish),
            at_end=tools.supervisor.end_forkserver,
        ):
            mistaken = None
            while not stop.is_set():
                mistaken = await _serve_queues(tools, settings, stop, supervisor=supervisor, mistaken=mistaken)
            with suppress(*DatabaseAway, TimeoutError):
                async with asyncio.timeout(LEAVING):
                    await publisher.publish()
        log.info("worker_stopped", worker=tools.name)


async def _serve_queues(
    tools: Tools, settings: Settings, stop: asyncio.Event, *, supervisor: str | None, mistaken: int | None
) -> int | None:
    """Take jobs until ``stop``; or until this worker was taken for dead, and then give the id that it had."""
    room = tools.work_dir.name
    lost_after = settings.worker_lost_after
    async with registered(
        tools.database, name=tools.name, room=room, supervisor=supervisor, lost_after=lost_after, mistaken=mistaken
    ) as registration:
        rescuer = Rescuer(tools.database, lost_after, settings.max_attempts)
        rescue = partial(_rescue, rescuer, tools)
        mistaken = None
        try:
            telling = _tell_confinement(tools, registration)
            forgotten = _every(CLEAN_UP_INTERVAL, rescuer.requeue_forgotten)
            async with _background(registration.keep(), _every(lost_after / RESCUES, rescue), forgotten, telling):
                await _consume(tools, settings, registration, stop)
        except* Forgotten:
            log.warning("taken_for_dead", worker=tools.name)
            mistaken = registration.id
    return mistaken


async def _consume(tools: Tools, settings: Settings, registration: Registration, stop: asyncio.Event) -> None:
    """Run the queues' jobs until ``stop``, and drain."""
    consumers = [
        *(_converting(tools, settings, registration) if _converts(settings) else ()),
        *(_carrying(tools, registration) if "transfers" in settings.worker_queues else ()),
    ]
    try:
        async with asyncio.TaskGroup() as group:
            for one in consumers:
                group.create_task(one.consume(stop))
        await registration.drain()
        await asyncio.gather(*(one.drain(settings.drain_timeout) for one in consumers))
    finally:
        for one in consumers:
            await one.abandon()


def _converts(settings: Settings) -> bool:
    """Whether this worker makes processes at all."""
    return "conversions" in settings.worker_queues


def _converting(tools: Tools, settings: Settings, registration: Registration) -> Iterator[Consumer]:
    """Consumers of what is done in processes."""
    consumer = partial(Consumer, tools.database, tools.changes, worker_id=registration.id)
    yield consumer(
        CONVERSIONS,
        lacking=lambda: tools.offer.lacking,
        concurrency=settings.children,
        run=partial(running.run_conversion, tools),
        hand_back=partial(running.hand_back_conversion, tools),
        stumble=partial(running.conversion_stumbled, tools),
    )
    yield consumer(
        INSPECTIONS,
        concurrency=INSPECTIONS_AT_ONCE,
        run=partial(running.run_inspection, tools),
        hand_back=partial(running.hand_back_inspection, tools),
        stumble=partial(running.inspection_stumbled, tools),
    )
    yield consumer(
        RECIPES,
        concurrency=RECIPES_AT_ONCE,
        run=partial(recipes.build, tools),
        hand_back=partial(running.hand_back_entry, tools),
        stumble=partial(recipes.build_stumbled, tools),
    )


def _carrying(tools: Tools, registration: Registration) -> Iterator[Consumer]:
    """Consumers of what the worker itself asks of other machines."""
    for name, concurrency, run, stumble in (
        (DELIVERIES, DELIVERIES_AT_ONCE, deliveries.deliver, deliveries.delivery_stumbled),
        (TRANSFERS, TRANSFERS_AT_ONCE, fetching.fetch, fetching.fetch_stumbled),
        (PUBLICATIONS, PUBLICATIONS_AT_ONCE, publications.publish, publications.publication_stumbled),
    ):
        yield Consumer(
            tools.database,
            tools.changes,
            name,
            worker_id=registration.id,
            concurrency=concurrency,
            run=partial(run, tools),
            hand_back=partial(running.hand_back_entry, tools),
            stumble=partial(stumble, tools),
        )


async def _rescue(rescuer: Rescuer, tools: Tools) -> None:
    async with abandoned_rooms(tools.work_dir.parent) as ended:
        if ended:
            async with tools.database.transaction() as session:
                await workers.mark_gone(session, ended)
    await rescuer.rescue()


async def _note_idle_deaths(tools: Tools) -> None:
    """Record deaths of forkservers in which nothing ran: they point at nobody, and speak for whom others point at."""

    async def record() -> None:
        async with tools.database.transaction() as session:
            await deaths.record(session, ())

    while True:
        await tools.supervisor.died_idle.wait()
        tools.supervisor.died_idle.clear()
        log.warning("forkserver_died_idle")
        metrics.deaths.labels("forkserver").inc()
        await patiently(record)


async def _tell_confinement(tools: Tools, registration: Registration) -> None:
    """Record how conversion processes are confined, whenever that turns out to be otherwise than was recorded."""
    told = None
    while True:
        if tools.supervisor.confined != told and tools.supervisor.confined is not None:
            told = tools.supervisor.confined
            await patiently(partial(_record_confinement, tools, registration, told))
        await tools.supervisor.confinement_changed.wait()
        tools.supervisor.confinement_changed.clear()


async def _record_confinement(tools: Tools, registration: Registration, confined: Confined) -> None:
    async with tools.database.transaction() as session:
        await workers.record_confinement(session, registration.id, asdict(confined))


@asynccontextmanager
async def _tools(settings: Settings, database_url: str, tasks: Tasks) -> AsyncIterator[Tools]:
    budget = settings.memory_budget or default_budget()
    limits = Limits(
        timeout=settings.job_timeout,
        memory=settings.child_memory_limit,
        file_bytes=settings.child_file_bytes,
        open_files=settings.child_open_files,
        neighbours=settings.children + INSPECTIONS_AT_ONCE + RECIPES_AT_ONCE,
    )
    admission = Admission(budget, settings.children)
    async with AsyncExitStack() as stack:
        database = Database(database_url, settings.database_pool, settings.signing_seed)
        stack.push_async_callback(database.close)
        plugins_dir = settings.plugins_dir.absolute() if settings.plugins_dir else None
        supervisor = Supervisor(
            tasks.preload,
            readable=(plugins_dir,) if plugins_dir else (),
            hidden=(settings.data_dir.resolve(),),
            requirement=settings.require_sandbox,
        )
        stack.callback(supervisor.close)
        work_dir = stack.enter_context(work_room(settings.work_dir))
        channels = tuple(map(queue.channel, (CONVERSIONS, INSPECTIONS, DELIVERIES, TRANSFERS, PUBLICATIONS, RECIPES)))
        yield Tools(
            database=database,
            store=OwnedStore(open_store(settings.objects_location, work_dir), database),
            signing=Signing(database, settings.signing_seed),
            changes=await stack.enter_async_context(Changes(database, channels)),
            supervisor=supervisor,
            admission=admission,
            work_dir=work_dir,
            name=f"{socket.gethostname()}:{os.getpid()}",
            limits=limits,
            inspection_limits=replace(
                limits, memory=limits.memory or admission.share, timeout=settings.inspection_timeout
            ),
            max_attempts=settings.max_attempts,
            lost_after=settings.worker_lost_after,
            threads=settings.child_threads,
            plugins_dir=plugins_dir,
            tasks=tasks,
            egress=Egress(settings.internal_hosts),
            grants=Grants(settings.remotes_file, settings.objects_location),
            largest_upload=settings.max_upload_bytes,
        )


@asynccontextmanager
async def _background(
    *doings: Coroutine[None, None, None], at_end: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """Do these for as long as the block lasts; an error of one ends the block. ``at_end`` ends what they wait for."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(doing) for doing in doings]
        yield
        for task in tasks:
            task.cancel()
        at_end()


async def _every(seconds: float, action: Callable[[], Awaitable[object]]) -> None:
    """Do something now and at intervals, for ever; what fails because a part is away is done next time."""
    while True:
        try:
            await action()
        except Exception as error:
            if away(error) is None and not isinstance(error, OSError):
                raise
            log.warning("postponed", error=str(error).split("\n", 1)[0])
        await asyncio.sleep(seconds)
