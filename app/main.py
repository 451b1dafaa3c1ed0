"""The composition root of the api: settings in, an ASGI application out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from app.api import (
    administration,
    architectures,
    checkpoints,
    comparison,
    conversion_files,
    conversion_log,
    conversions,
    errors_table,
    events,
    groups,
    operations,
    preflight,
    prices,
    resumable,
    webhooks,
)
from app.api.browsers import CORS, BrowserGuard, allowed_hosts
from app.api.catalog import CatalogReader
from app.api.compression import Compression
from app.api.documentation import install_documentation
from app.api.early_answers import EarlyAnswers
from app.api.layouts import LayoutReader
from app.api.observe import PROBES, Observe
from app.api.openapi import describe
from app.api.parameters import refuse_unknown_parameters
from app.api.principals import Authenticator
from app.api.problems import install_problem_handlers
from app.api.retirement import Retirements
from app.api.service import Service
from app.api.upload_slots import UploadSlots
from app.database.backlog import Backlog
from app.database.owned_store import OwnedStore
from app.database.session import Database
from app.domain.versions import service_version
from app.jobs.events import Changes
from app.remotes.egress import Egress
from app.remotes.grants import Grants
from app.settings import Settings
from app.storage.opening import open_store
from app.web.pages import install_pages
from app.web.problem_page import problem_page

ROUTERS = (
    conversions,  # first, since they are searched in this order and clients poll conversions
    administration,
    architectures,
    checkpoints,
    resumable,
    events,
    conversion_files,
    conversion_log,
    comparison,
    errors_table,
    groups,
    prices,
    operations,
    preflight,
    webhooks,
)

TRACES = TelemetryConfig(
    metrics=False,
    logs=False,  # they would hold bodies
    operation_spans=False,
    auto_configure=False,
    exclude=lambda scope: scope.get("path") in PROBES,
)
"""What is traced where the process has traces configured (telemetry.py)."""


def create_app(settings: Settings, database_url: str, supervisor: str | None = None) -> FastAPI:
    """The api on a migrated database. It opens its connections when it starts and closes them when it stops.

    ``supervisor``: the run of `recast serve` that it belongs to.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(database_url, settings.database_pool, settings.signing_seed)
        store = OwnedStore(open_store(settings.objects_location, settings.data_dir / "scratch"), database)
        uploads = UploadSlots(settings.data_dir, settings.max_uploads_per_client, settings.min_free_bytes)
        async with Changes(database) as changes:
            catalog = CatalogReader(database, settings.worker_lost_after)
            app.state.authenticator = Authenticator(settings, database)
            app.state.service = Service(
                settings,
                database,
                store,
                changes,
                catalog.of(database),
                catalog,
                LayoutReader(database),
                uploads,
                Egress(settings.internal_hosts),
                Grants(settings.remotes_file, settings.objects_location),
                Backlog(settings.max_queued),
                supervisor,
            )
            yield
        await database.close()

    app = FastAPI(
        title="Recast",
        version=service_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        dependencies=[Depends(refuse_unknown_parameters)],
        telemetry=TRACES,
    )
    app.add_middleware(Retirements)
    app.add_middleware(Compression)
    app.add_middleware(EarlyAnswers)
    app.add_middleware(resumable.TusHeaders)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **CORS, allow_origins=settings.cors_origins)
    app.add_middleware(BrowserGuard, hosts=allowed_hosts(settings), origins=settings.cors_origins)
    app.add_middleware(Observe)
    routes = [route for module in ROUTERS for route in module.router.routes if isinstance(route, Route)]
    install_problem_handlers(app, routes, problem_page)
    install_pages(app)
    for module in ROUTERS:
        app.include_router(module.router)
    install_documentation(app)
    describe(app)
    return app


def _operation_id(route: APIRoute) -> str:
    """The function's name: short, and stable as long as the operation is the same."""
    return route.name
