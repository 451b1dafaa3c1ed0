"""The pages: start, conversions, one conversion, architectures, a checkpoint, and what each error means."""

import asyncio
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from app.api.checkpoints import Sha256, checkpoint_resource
from app.api.conversion_files import prefers_html
from app.api.conversion_resource import conversion_resource
from app.api.conversions import ConversionId
from app.api.errors_table import explain_problem, problem_kinds
from app.api.readable import ReadableRouter
from app.api.service import Service, ServiceDependency
from app.database import checkpoints, conversions
from app.database.conversions import Filter
from app.database.tables import Conversion, ConversionFile
from app.delivery.report_page import report_values
from app.domain.conversion import CommonOptions, Stage, State
from app.domain.report import ConversionReport
from app.targets.specs import SPECS
from app.web import guide
from app.web.rendering import page

router = ReadableRouter(include_in_schema=False)

LISTED = 50
CATALOG_PAGE = 60
HIDDEN_OPTIONS = frozenset({"target", "runtime", "simplify", "precision"})
"""Target options with one admitted value."""


def install_pages(app: FastAPI) -> None:
    """Add the pages and the files that they use, before the resources whose paths some pages share."""
    app.include_router(router)
    app.include_router(guide.router)
    app.mount("/static", StaticFiles(directory=str(files("app.web").joinpath("static"))), name="static")


@router.get("/")
async def start_page(service: ServiceDependency) -> HTMLResponse:
    """Convert a file: choose it, name its architecture, go."""
    async with service.database.transaction() as session:
        recent = await conversions.newest(session, Filter(), 5)
    schemas = {spec.name: _shown_options(spec.options) for spec in SPECS.values()}
    return page("start.html", targets=SPECS, schemas=schemas, recent=recent)


@router.get("/favicon.ico")
async def favicon() -> Response:
    return Response(files("app.web").joinpath("static/mark.svg").read_bytes(), media_type="image/svg+xml")


@router.get("/static/report.css")
async def report_style() -> Response:
    """The style that the report carries within itself."""
    return Response(files("app.delivery").joinpath("templates/report/style.css").read_bytes(), media_type="text/css")


@router.get("/conversions")
async def conversions_page(
    service: ServiceDependency,
    state: Annotated[State | None, Query()] = None,
    architecture: Annotated[str, Query(max_length=300, pattern=r"^[^\x00]*$")] = "",
    cursor: Annotated[str | None, Query(pattern="^cnv_[0-9a-f]{32}$")] = None,
) -> HTMLResponse:
    wanted = Filter(state=state, architecture=architecture or None, before=cursor)
    async with service.database.transaction() as session:
        found = await conversions.newest(session, wanted, LISTED + 1)
        counts = await conversions.count_by_state(session)
    return page(
        "conversions.html",
        rows=found[:LISTED],
        older=found[LISTED - 1].id if len(found) > LISTED else None,
        counts=counts,
        states=list(State),
        state=state,
        architecture=architecture,
    )


@router.get("/conversions/{conversion_id}")
async def conversion_page(conversion_id: ConversionId, service: ServiceDependency) -> HTMLResponse:
    """One conversion: where it stands while it runs, what it yielded when it has ended."""
    async with service.database.transaction() as session:
        row = await conversions.find(session, conversion_id)
        kept = await conversions.files(session, conversion_id)
        others = await conversions.newest(session, Filter(checkpoint_sha256=row.checkpoint_sha256), 10)
    resource = conversion_resource(row, kept)
    report = await _report(service, row, {file.role: file for file in kept})
    values: dict[str, Any] = {} if report is None else await asyncio.to_thread(report_values, report)
    return page(
        "conversion.html",
        conversion=resource,
        has_report=report is not None,
        others=[other for other in others if other.id != row.id],
        steps=[stage.value for stage in Stage],
        snippets=None if report is None else SPECS[report.target].usage(report),
        **values,
    )


@router.get("/architectures")
async def architectures_page(
    service: ServiceDependency,
    query: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str, Query(max_length=300)] = "",
) -> HTMLResponse:
    found = sorted((await service.catalog.current()).search(query, None), key=lambda entry: entry.name)
    rest = [entry for entry in found if entry.name > after]
    return page(
        "architectures.html",
        entries=rest[:CATALOG_PAGE],
        total=len(found),
        query=query,
        next=rest[CATALOG_PAGE - 1].name if len(rest) > CATALOG_PAGE else None,
    )


@router.get("/architectures/{name:path}")
async def architecture_page(name: str, service: ServiceDependency) -> HTMLResponse:
    return page("architecture.html", entry=(await service.catalog.current()).get(name))


@router.get("/checkpoints/{sha256}")
async def checkpoint_page(sha256: Sha256, service: ServiceDependency) -> HTMLResponse:
    async with service.database.transaction() as session:
        row = await checkpoints.owner(session, sha256)
        made = await conversions.newest(session, Filter(checkpoint_sha256=sha256), LISTED)
    return page("checkpoint.html", checkpoint=checkpoint_resource(row), conversions=made)


@router.get("/problems")
async def problems_page() -> HTMLResponse:
    return page("problems.html", kinds=problem_kinds().values())


@router.get("/problems/{code}")
async def problem_kind_page(code: str) -> HTMLResponse:
    return page("problem_kind.html", kind=await explain_problem(code))


@router.get("/v1/problems/{code}")
async def problem_kind(code: str, accept: Annotated[str | None, Header()] = None) -> Response:
    """What the ``type`` of a problem leads to: a page in a browser, else JSON."""
    if prefers_html(accept):
        return await problem_kind_page(code)
    kind = await explain_problem(code)
    return Response(kind.model_dump_json(), media_type="application/json", headers={"Vary": "Accept"})


async def _report(service: Service, row: Conversion, kept: dict[str, ConversionFile]) -> ConversionReport | None:
    """The conversion's report; None where there is none or its files are no longer kept."""
    file = kept.get("report")
    if file is None or row.expired_at is not None or await service.store.size(file.sha256) is None:
        return None
    document = b"".join([chunk async for chunk in service.store.stream(file.sha256)])
    return await asyncio.to_thread(ConversionReport.model_validate_json, document)


def _shown_options(model: type[CommonOptions]) -> dict[str, Any]:
    """JSON Schema of a target's options without those that admit one value only."""
    schema = model.model_json_schema()
    schema["properties"] = {k: v for k, v in schema["properties"].items() if k not in HIDDEN_OPTIONS}
    return schema
