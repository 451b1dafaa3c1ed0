"""The composition root of the api: settings in, an ASGI application out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from app.api import (
    architectures,
    checkpoints,
    conversion_files,
    conversions,
    errors_table,
    events,
    operations,
)
from app.api.browsers import CORS, BrowserGuard, allowed_hosts
from app.api.catalog import CatalogReader
from app.api.conversion_schema import option_schemas
from app.api.documentation import install_documentation
from app.api.early_answers import EarlyAnswers
from app.api.observe import Observe
from app.api.parameters import refuse_unknown_parameters
from app.api.problems import ProblemDocument, install_problem_handlers
from app.api.service import Service
from app.api.upload_slots import UploadSlots
from app.api.versions import service_version
from app.database.session import Database
from app.jobs.events import Changes
from app.settings import Settings
from app.storage.opening import open_store
from app.web.pages import install_pages
from app.web.problem_page import problem_page

DESCRIPTION = """Converts PyTorch weights of registered architectures to ONNX and TorchScript, proves the result against
the model, and serves artifact, report and bundle. Errors are problem documents (RFC 9457); see /v1/problems."""

ROUTERS = (architectures, checkpoints, conversions, events, conversion_files, errors_table, operations)


def create_app(settings: Settings, database_url: str) -> FastAPI:
    """The api on a migrated database. It opens its connections when it starts and closes them when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(database_url, settings.database_pool)
        store = open_store(settings.objects_location, settings.data_dir / "scratch")
        uploads = UploadSlots(settings.data_dir, settings.max_uploads_per_client, settings.min_free_bytes)
        async with Changes(database) as changes:
            app.state.service = Service(settings, database, store, changes, CatalogReader(database), uploads)
            yield
        await database.close()

    app = FastAPI(
        title="Recast",
        version=service_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(refuse_unknown_parameters)],
    )
    app.add_middleware(EarlyAnswers)
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
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Complete the OpenAPI document with the schemas that handwritten parts of it refer to."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
            schemas.update(option_schemas())
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
