"""The worker: takes jobs from the queue, runs each in a child process, rescues what other workers lost, cleans up."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

import structlog
from procrastinate import App, JobContext, PsycopgConnector
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import AbortReason

from app.database.session import SESSION_OPTIONS, Database
from app.domain.errors import NotFound, Unavailable
from app.jobs import running
from app.jobs.admission import Admission, default_budget
from app.jobs.catalog import publish_catalog
from app.jobs.confinement import Limits
from app.jobs.events import Changes
from app.jobs.patience import DatabaseAway, patiently
from app.jobs.queue import CONVERSIONS, CONVERT, INSPECT, INSPECTIONS
from app.jobs.rescue import rescue
from app.jobs.retention import clean_up
from app.jobs.running import TASKS, Tasks, Tools
from app.jobs.supervisor import Supervisor
from app.jobs.warming import warm_templates
from app.jobs.workroom import work_room
from app.settings import Settings
from app.storage.opening import open_store

log = structlog.get_logger(__name__)

POLL_INTERVAL = 5.0
"""Seconds after which the queue is looked at although nothing was announced."""
CLEAN_UP_INTERVAL = 600.0
RESTART_DELAY = 2.0
"""Seconds before the queue's worker is started again after it stopped because the database was away."""
INSPECTIONS_AT_ONCE = 2


async def run_worker(settings: Settings, database_url: str, stop: asyncio.Event, tasks: Tasks = TASKS) -> None:
    """Work until ``stop`` is set, then drain: running jobs get ``drain_timeout`` seconds, the rest is handed back.

    The database at ``database_url`` (libpq) is migrated already.
    """
    async with _tools(settings, database_url, tasks) as tools:
        await tools.supervisor.warm_up()
        log.info("worker_started", worker=tools.name, children=settings.children)
        async with asyncio.TaskGroup() as group:
            save = partial(
                rescue, tools.database, lost_after=settings.worker_lost_after, max_attempts=settings.max_attempts
            )
            clean = partial(
                clean_up,
                tools.database,
                tools.store,
                retention=timedelta(days=settings.retention_days) if settings.retention_days else None,
                orphan_grace=timedelta(seconds=settings.orphan_grace),
            )
            background = [
                group.create_task(_every(settings.worker_lost_after / 3, save)),
                group.create_task(_every(CLEAN_UP_INTERVAL, clean)),
                group.create_task(publish_catalog(tools)),
                group.create_task(warm_templates(tools, settings.warm_templates)),
            ]
            await work(tools, settings, stop)
            for task in background:
                task.cancel()
        log.info("worker_stopped", worker=tools.name)


@asynccontextmanager
async def _tools(settings: Settings, database_url: str, tasks: Tasks) -> AsyncIterator[Tools]:
    budget = settings.memory_budget or default_budget()
    limits = Limits(
        timeout=settings.job_timeout,
        memory=settings.child_memory_limit or budget,
        file_bytes=settings.child_file_bytes,
        open_files=settings.child_open_files,
    )
    async with AsyncExitStack() as stack:
        database = Database(database_url, settings.database_pool)
        stack.push_async_callback(database.close)
        supervisor = Supervisor(tasks.preload)
        stack.callback(supervisor.close)
        work_dir = stack.enter_context(work_room(settings.work_dir))
        yield Tools(
            database=database,
            store=open_store(settings.objects_location, work_dir),
            changes=await stack.enter_async_context(Changes(database)),
            supervisor=supervisor,
            admission=Admission(budget),
            work_dir=work_dir,
            name=f"{socket.gethostname()}:{os.getpid()}",
            limits=limits,
            inspection_limits=limits.within(settings.inspection_timeout),
            threads=settings.child_threads,
            plugins_dir=settings.plugins_dir,
            tasks=tasks,
        )


async def work(tools: Tools, settings: Settings, stop: asyncio.Event) -> None:
    """Take jobs until ``stop`` is set and the running ones are through or handed back.

    When the database goes away for long, the queue's workers end; then new ones are started, again and again.
    """
    stopping = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            taking = asyncio.create_task(_take_jobs(tools, settings))
            await asyncio.wait([taking, stopping], return_when=asyncio.FIRST_COMPLETED)
            taking.cancel()
            for error in await asyncio.gather(taking, return_exceptions=True):
                if isinstance(error, ConnectorException | OSError):
                    log.warning("queue_interrupted", error=str(error))
                elif isinstance(error, Exception):
                    raise error
            await asyncio.wait([stopping], timeout=RESTART_DELAY)
    finally:
        stopping.cancel()


async def _take_jobs(tools: Tools, settings: Settings) -> None:
    """Run the queue's two workers until one of them ends or this is cancelled; then drain both."""
    app = _queue(tools)
    async with app.open_async():
        heartbeat = settings.worker_lost_after / 5
        run = partial(
            app.run_worker_async,
            fetch_job_polling_interval=POLL_INTERVAL,
            abort_job_polling_interval=1.0,
            shutdown_graceful_timeout=settings.drain_timeout,
            update_heartbeat_interval=heartbeat,
            stalled_worker_timeout=settings.worker_lost_after,
            install_signal_handlers=False,
            delete_jobs="always",
        )
        workers = [
            asyncio.create_task(run(name=CONVERSIONS, queues=[CONVERSIONS], concurrency=settings.children)),
            asyncio.create_task(run(name=INSPECTIONS, queues=[INSPECTIONS], concurrency=INSPECTIONS_AT_ONCE)),
        ]
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for worker in workers:
                worker.cancel()
            for error in await asyncio.gather(*workers, return_exceptions=True):
                if isinstance(error, Exception):
                    raise error


def _queue(tools: Tools) -> App:
    app = App(
        connector=_PatientConnector(
            conninfo=tools.database.url,
            kwargs={"options": SESSION_OPTIONS, "connect_timeout": 5},
            timeout=60,
            min_size=1,
            max_size=8,
        )
    )

    @app.task(name=CONVERT, queue=CONVERSIONS, pass_context=True)
    async def convert(context: JobContext, conversion_id: str) -> None:
        assert context.job.id is not None
        try:
            await running.run_conversion(tools, conversion_id, context.job.id)
        except NotFound:
            log.info("conversion_deleted", conversion=conversion_id)
        except asyncio.CancelledError:
            if context.abort_reason() is AbortReason.SHUTDOWN:
                await patiently(partial(running.hand_back, tools, conversion_id, context.job.id))
            raise

    @app.task(name=INSPECT, queue=INSPECTIONS)
    async def inspect(sha256: str) -> None:
        await running.run_inspection(tools, sha256)

    return app


class _PatientConnector(PsycopgConnector):
    """Listens again when the database was away, where the original gives up and ends the worker."""

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        while True:
            try:
                await super().listen_notify(on_notification, channels)
            except ConnectorException as error:
                log.warning("queue_listening_interrupted", error=str(error))
                await asyncio.sleep(RESTART_DELAY)


async def _every(seconds: float, action: Callable[[], Awaitable[object]]) -> None:
    """Do something now and at intervals, for ever; what fails because database or store are away is done next time."""
    while True:
        try:
            await action()
        except (*DatabaseAway, Unavailable, OSError) as error:
            log.warning("postponed", error=str(error).splitlines()[0])
        await asyncio.sleep(seconds)
