"""What operators and their machines ask: liveness, readiness, metrics, versions; and the report's schema."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Mapping
from typing import Any, Literal

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from app.api.principals import Acting
from app.api.problems import PROBLEM_RESPONSES
from app.api.readable import ReadableRouter
from app.api.service import Service, WholeService
from app.database import catalogs, conversions, signing, sums, workers
from app.database.backlog import oldest_seconds
from app.delivery.report_schema import report_schema
from app.delivery.statement import Signer, key_id
from app.domain.conversion import State
from app.domain.errors import RecastError, Unavailable
from app.domain.versions import library_versions, service_version
from app.jobs.metrics import exposition

router = ReadableRouter(tags=["operations"], responses=PROBLEM_RESPONSES)

CHECK_SECONDS = 5.0


class Liveness(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Each part: "ok", or what is wrong with it."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, str]
    workers: int
    """Workers that gave a sign of life lately."""
    notes: tuple[str, ...] = ()
    """What hinders nothing and should be known, such as plug-ins that could not be loaded."""
    sandbox: "Sandbox | None" = None
    """How conversion processes are confined; null before a worker has made one."""


class Sandbox(BaseModel):
    """The layers around conversion processes (SECURITY.md), over all workers that gave a sign of life lately."""

    required: Literal["none", "network", "full"]
    """Without what conversions are refused."""
    in_force: list[str]
    """Layers in force at every worker."""
    missing: dict[str, str]
    """Layers that the platform of some worker refuses, with its reason."""


class StatementKey(BaseModel):
    """``keyid``: sha256 of the raw public key, as signatures name it; ``public``: the raw key, 32 bytes in base64."""

    keyid: str
    algorithm: Literal["ed25519"]
    public: str


class StatementKeys(BaseModel):
    keys: list[StatementKey]


class Versions(BaseModel):
    service: str
    libraries: dict[str, str]


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Liveness:
    return Liveness()


@router.get("/readyz", summary="Can it serve?", responses={503: {"model": Readiness}})
async def readyz(service: WholeService, response: Response) -> Readiness:
    """Database, object store, queue and catalog. Jobs are also accepted while no worker lives: `workers` says so."""
    parts = {
        "database": service.database.ping(),
        "store": service.store.check(),
        "queue": _queue(service),
        "architectures": _architectures(service),
    }
    answers = await asyncio.gather(*(_checked(check) for check in parts.values()))
    checks = dict(zip(parts, answers, strict=True))
    ready = all(answer == "ok" for answer in answers)
    response.status_code = 200 if ready else 503
    living, sandbox = await _living_workers(service) if checks["database"] == "ok" else (0, None)
    notes = await _notes_on_plugins(service) if checks["architectures"] == "ok" else ()
    return Readiness(
        status="ready" if ready else "not_ready", checks=checks, workers=living, notes=notes, sandbox=sandbox
    )


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(service: WholeService, acting: Acting) -> Response:
    """Of all projects; a key that is needed for it is an operator's."""
    acting.require_operator()
    async with service.database.transaction() as session:
        counts = await conversions.count_by_state(session)
        waited = await oldest_seconds(session)
        counted_by_workers = await sums.all_sums(session)
    living, sandbox = await _living_workers(service)
    gauges = exposition(counted_by_workers) + _conversion_gauges(counts, waited, living) + _sandbox_gauge(sandbox)
    return Response(generate_latest(REGISTRY) + gauges, media_type=CONTENT_TYPE_LATEST)


@router.get("/.well-known/recast-key", summary="Keys that statements are signed with")
async def statement_keys(service: WholeService) -> StatementKeys:
    """Public parts, the newest first; those of earlier keys stay, because what they signed is out in the world."""
    async with service.database.transaction() as session:
        known = dict(await signing.public_keys(session))
    if service.settings.signing_seed is not None:
        configured = Signer(service.settings.signing_seed).public
        known = {key_id(configured): configured, **known}
    return StatementKeys(
        keys=[StatementKey(keyid=id, algorithm="ed25519", public=b64encode(key).decode()) for id, key in known.items()]
    )


@router.get("/version", summary="Versions of all that shapes an artifact")
async def versions() -> Versions:
    return Versions(service=service_version(), libraries=library_versions())


@router.get("/v1/schemas/report", summary="JSON Schema of the report")
async def get_report_schema() -> dict[str, Any]:
    return report_schema()


async def _checked(check: Awaitable[None]) -> str:
    """ "ok", or in one line why not."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:.0f} s"
    except (RecastError, SQLAlchemyError, OSError) as error:
        return str(error).splitlines()[0][:200]
    return "ok"


async def _living_workers(service: Service) -> tuple[int, Sandbox | None]:
    lost_after = service.settings.worker_lost_after
    async with service.database.transaction() as session:
        count = await workers.count_alive(session, lost_after)
        told = await workers.confinements(session, lost_after)
    if not told:
        return count, None
    missing = {layer: reason for one in told for layer, reason in one["missing"].items()}
    in_force = sorted(set.intersection(*(set(one["in_force"]) for one in told)))
    return count, Sandbox(required=service.settings.require_sandbox, in_force=in_force, missing=missing)


async def _queue(service: Service) -> None:
    async with service.database.transaction() as session:
        await oldest_seconds(session)


async def _architectures(service: Service) -> None:
    """A worker of this start must have described its architectures, so that the catalog knows the plug-ins as they are
    now; those that are late are not waited for."""
    await service.every_catalog.current()
    lost_after = service.settings.worker_lost_after
    async with service.database.transaction() as session:
        if not await catalogs.is_of_this_start(session, service.supervisor, lost_after):
            raise Unavailable("The workers are still describing their architectures.")
    await service.every_catalog.current()  # again: what it gave before may be of an earlier start
    if service.every_catalog.pending:
        raise Unavailable(f"These plug-ins are still being described: {', '.join(service.every_catalog.pending)}.")


async def _notes_on_plugins(service: Service) -> tuple[str, ...]:
    catalog = await service.every_catalog.current()
    broken = (f"plug-in {plugin.name} could not be loaded: {plugin.error[:200]}" for plugin in catalog.broken[:20])
    late = (f"plug-in {name} is still being described" for name in catalog.undescribed[:20])
    return (*broken, *late)


def _conversion_gauges(counts: Mapping[State, int], waited: float, workers: int) -> bytes:
    registry = CollectorRegistry()
    gauge = Gauge("recast_conversions", "Conversions known, by state", ["state"], registry=registry)
    for state in State:
        gauge.labels(state.value).set(counts.get(state, 0))
    running = Gauge("recast_children_running", "Conversion processes that run now", registry=registry)
    running.set(counts.get(State.running, 0))
    age = Gauge(
        "recast_queue_oldest_seconds", "For how long the oldest waiting conversion has waited", registry=registry
    )
    age.set(waited)
    alive = Gauge("recast_workers", "Workers that gave a sign of life lately", registry=registry)
    alive.set(workers)
    return generate_latest(registry)


def _sandbox_gauge(sandbox: Sandbox | None) -> bytes:
    registry = CollectorRegistry()
    gauge = Gauge(
        "recast_sandbox_layer", "Whether a layer around conversion processes is in force", ["layer"], registry=registry
    )
    if sandbox:
        for layer in {*sandbox.in_force, *sandbox.missing}:
            gauge.labels(layer).set(layer not in sandbox.missing)
    return generate_latest(registry)
