"""The pages: start, conversions, one conversion, and what each error means."""

import asyncio
import json
from importlib.resources import files
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import FastAPI, Header, Query
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from app.api.conversion_files import prefers_html
from app.api.conversion_resource import ConversionResource, conversion_resource
from app.api.conversions import ConversionId
from app.api.errors_table import explain_problem, problem_kinds
from app.api.labels import labels_of
from app.api.principals import Acting
from app.api.readable import ReadableRouter
from app.api.reports import report_of
from app.api.service import ServiceDependency
from app.database import checkpoints, conversions
from app.database.conversions import Filter
from app.delivery.report_page import certifying_page, report_values
from app.delivery.words import VERDICT_WORDS
from app.domain.conversion import CommonOptions, Stage, State, TargetName
from app.domain.report import ConversionReport, Verdict
from app.targets.specs import SPECS, known_target, shows_graph
from app.web import administration_page, catalog_pages, comparison_page, guide, sign_in
from app.web.graph import install_graph_viewer, viewer_path
from app.web.rendering import page

router = ReadableRouter(include_in_schema=False)

LISTED = 50
InLink = Annotated[str, Query(max_length=8192, description="Fills the form of the start page")]


def install_pages(app: FastAPI) -> None:
    """Add the pages and the files that they use, before the resources whose paths some pages share."""
    app.include_router(router)
    app.include_router(guide.router)
    for module in (catalog_pages, comparison_page, administration_page, sign_in):
        app.include_router(module.router)
    install_graph_viewer(app)
    app.mount("/static", StaticFiles(directory=str(files("app.web").joinpath("static"))), name="static")


@router.get("/")
async def start_page(
    *,
    service: ServiceDependency,
    acting: Acting,
    checkpoint: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$", description="An uploaded file")] = None,
    architecture: InLink = "",
    target: InLink = "",
    options: InLink = "",
    architecture_options: InLink = "",
) -> HTMLResponse:
    """Convert a file: choose it, name its architecture, go."""
    del architecture, target, options, architecture_options  # what is admitted; start.js reads them
    async with service.database.transaction() as session:
        recent = await conversions.newest(session, Filter(), 5)
        uploaded = None if checkpoint is None else await checkpoints.owner(session, checkpoint)
    schemas = {spec.name: _shown_options(spec.options) for spec in SPECS.values()}
    return page("start.html", acting=acting, targets=SPECS, schemas=schemas, recent=recent, uploaded=uploaded)


@router.get("/favicon.ico")
async def favicon() -> Response:
    return Response(files("app.web").joinpath("static/mark.svg").read_bytes(), media_type="image/svg+xml")


@router.get("/static/report.css")
async def report_style() -> Response:
    """The style that the report carries within itself."""
    return Response(files("app.delivery").joinpath("templates/report/style.css").read_bytes(), media_type="text/css")


@router.get("/conversions")
async def conversions_page(
    *,
    service: ServiceDependency,
    acting: Acting,
    state: Annotated[State | Literal[""], Query()] = "",
    target: Annotated[TargetName | Literal[""], Query()] = "",
    verdict: Annotated[Verdict | Literal[""], Query()] = "",
    architecture: Annotated[str, Query(max_length=300, pattern=r"^[^\x00]*$")] = "",
    label: Annotated[str, Query(max_length=300, description="key:value")] = "",
    cursor: Annotated[str | None, Query(pattern="^cnv_[0-9a-f]{32}$")] = None,
) -> HTMLResponse:
    chosen = {"state": state, "target": target, "verdict": verdict, "architecture": architecture, "label": label}
    wanted = Filter(
        state=State(state) if state else None,
        architecture=architecture or None,
        target=target or None,
        verdict=verdict or None,
        labels=labels_of([label]) if label else {},
        before=cursor,
    )
    async with service.database.transaction() as session:
        found = await conversions.overview(session, wanted, LISTED + 1, service.settings.worker_lost_after)
    more = len(found.rows) > LISTED
    query = urlencode({name: value for name, value in chosen.items() if value})
    return page(
        "conversions.html",
        acting=acting,
        rows=found.rows[:LISTED],
        older=f"/conversions?{query}{'&' if query else ''}cursor={found.rows[LISTED - 1].id}" if more else None,
        counts=found.counts,
        workers=found.workers,
        states=list(State),
        states_in_words=[(each.value, each.value.replace("_", " ")) for each in State],
        verdicts_in_words=[(each.value, VERDICT_WORDS[each]) for each in Verdict],
        targets_in_words=[(spec.name, spec.title) for spec in SPECS.values()],
        chosen=chosen,
    )


@router.get("/conversions/{conversion_id}")
async def conversion_page(conversion_id: ConversionId, service: ServiceDependency, acting: Acting) -> HTMLResponse:
    """One conversion: where it stands while it runs, what it yielded when it has ended."""
    async with service.database.transaction() as session:
        row = await conversions.find(session, conversion_id)
        kept = await conversions.files(session, conversion_id)
        others = await conversions.newest(session, Filter(checkpoint_sha256=row.checkpoint_sha256), 10)
    resource = conversion_resource(row, kept)
    kept_roles = {file.role: file for file in kept}
    file = None if row.expired_at is not None else kept_roles.get("report")
    has_report = file is not None and await service.store.size(file.sha256) is not None
    report = await report_of(service, file) if file is not None and has_report else None
    values = {"report": None, "certifying": None} if report is None else await asyncio.to_thread(_values, report)
    return page(
        "conversion.html",
        acting=acting,
        conversion=resource,
        has_report=has_report,
        graph=viewer_path(row.id, row.architecture) if "artifact" in kept_roles and shows_graph(row.target) else None,
        others=[other for other in others if other.id != row.id],
        again=start_path(resource),
        steps=[stage.value for stage in Stage],
        **values,
    )


@router.get("/problems")
async def problems_page() -> HTMLResponse:
    return page("problems.html", kinds=problem_kinds().values())


@router.get("/problems/{code}")
async def problem_kind_page(code: str) -> HTMLResponse:
    kind = await explain_problem(code)
    return page("problem_kind.html", kind=kind, example=json.dumps(kind.example, indent=2, ensure_ascii=False))


@router.get("/v1/problems/{code}")
async def problem_kind(code: str, accept: Annotated[str | None, Header()] = None) -> Response:
    """What the ``type`` of a problem leads to: a page in a browser, else JSON."""
    if prefers_html(accept):
        return await problem_kind_page(code)
    kind = await explain_problem(code)
    return Response(kind.model_dump_json(), media_type="application/json", headers={"Vary": "Accept"})


def start_path(conversion: ConversionResource) -> str:
    """The start page with this conversion's checkpoint and what was asked of it, to be changed there."""
    spec = known_target(conversion.target)
    usual = {} if spec is None else spec.options.model_validate({}).model_dump(mode="json")
    options = {option: value for option, value in conversion.options.items() if usual.get(option, value) != value}
    asked = {
        "checkpoint": conversion.checkpoint.sha256,
        "architecture": conversion.architecture,
        "target": conversion.target,
        "options": options and json.dumps(options),
        "architecture_options": conversion.architecture_options and json.dumps(conversion.architecture_options),
    }
    return "/?" + urlencode({name: value for name, value in asked.items() if value})


def _values(report: ConversionReport) -> dict[str, Any]:
    return report_values(report, certifying=certifying_page(report))


def _shown_options(model: type[CommonOptions]) -> dict[str, Any]:
    """JSON Schema of a target's options without those that admit one value only."""
    schema = model.model_json_schema()
    schema["properties"] = {name: rule for name, rule in schema["properties"].items() if "const" not in rule}
    return schema
