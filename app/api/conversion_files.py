"""What a conversion produced: the artifact, the report and the bundle."""

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import Header, Query, Request, Response
from starlette.responses import RedirectResponse

from app.api.conversion_resource import path_of, shown_problem
from app.api.conversions import POLL_SECONDS, ConversionId
from app.api.problems import PROBLEM_RESPONSES
from app.api.ranges import Content, respond
from app.api.readable import ReadableRouter
from app.api.reports import page_of, refuse_lost
from app.api.service import Service, ServiceDependency
from app.database import conversions as rows
from app.database.tables import Conversion, ConversionFile
from app.delivery import zip_layout
from app.delivery.bundle import Bundle, BundledFile, make_bundle
from app.delivery.onnx_file import NotReadable, Read, weight_free
from app.domain.errors import Expired, NotReady, Problem, Unverified
from app.domain.produced_files import MEDIA_TYPES
from app.domain.report import Verdict
from app.storage.objects import Chunk
from app.targets.specs import shows_graph

router = ReadableRouter(prefix="/v1/conversions", tags=["results"], responses=PROBLEM_RESPONSES)

PRESIGNED_FOR = timedelta(minutes=15)
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The report carries its style within itself, and nothing else."""
PROVED = {verdict.value for verdict in Verdict if verdict.proved}
BUNDLE_ORDER = ("artifact", "artifact_data", "report", "golden", "selfcheck", "statement")

Unseen = Annotated[bool, Query(alias="unverified", description="true: serve it although verification failed")]
RangeHeader = Annotated[str | None, Header(alias="range", description="bytes=first-last")]
BYTES = {"schema": {"type": "string", "format": "binary"}}


def _file_responses(*media_types: str) -> dict[int | str, dict[str, Any]]:
    content = dict.fromkeys(media_types, BYTES)
    return {
        200: {"description": "The whole file", "content": content},
        206: {"description": "The range asked for", "content": content},
        304: {"description": "The client's copy is current"},
    }


@router.get(
    "/{conversion_id}/artifact",
    summary="Download the artifact",
    response_class=Response,
    responses={
        **_file_responses("application/octet-stream", "application/onnx"),
        307: {"description": "A presigned URL of the store"},
    },
)
async def get_artifact(
    *,
    conversion_id: ConversionId,
    request: Request,
    service: ServiceDependency,
    unverified: Unseen = False,
    part: Annotated[
        Literal["model", "data"], Query(description="data: the weights file of a model in two files")
    ] = "model",
    redirect: Annotated[
        bool, Query(description="true: prefer a presigned URL of the store, where it has such")
    ] = False,
    range_header: RangeHeader = None,
) -> Response:
    """The file, with `Range`, `If-Range`, `ETag` (its sha256), `Content-Disposition` and `Repr-Digest`.

    An artifact that failed verification is quarantined: it is served only with `?unverified=true`.
    """
    del range_header  # read in respond; declared for the documentation
    conversion, files = await results(service, conversion_id)
    file = file_of(conversion, files, "artifact" if part == "model" else "artifact_data")
    _refuse_unverified(conversion, unverified)
    await refuse_lost(service, file)
    if redirect and (url := service.store.url(file.sha256, PRESIGNED_FOR)) is not None:
        return RedirectResponse(url, status_code=307)
    return respond(request, _stored(service, file), _verdict_headers(conversion))


@router.get(
    "/{conversion_id}/bundle",
    summary="Download the bundle",
    response_class=Response,
    responses=_file_responses("application/octet-stream", "application/zip"),
)
async def get_bundle(
    conversion_id: ConversionId,
    request: Request,
    service: ServiceDependency,
    unverified: Unseen = False,
    range_header: RangeHeader = None,
) -> Response:
    """A zip (stored): artifact, report.json, report.html, golden inputs and outputs, self-check, and a manifest with
    the sha256 of each member. Its bytes are reproducible; ranges are supported.
    """
    del range_header
    conversion, files = await results(service, conversion_id)
    file_of(conversion, files, "artifact")
    _refuse_unverified(conversion, unverified)
    bundle = await _bundle(service, conversion, files)

    def stream(start: int, end: int) -> AsyncIterator[Chunk]:
        return zip_layout.stream(bundle.pieces, start, end, service.store.stream)

    content = Content(f"{conversion_id}.zip", "application/zip", bundle.size, f'"{bundle.digest}"', stream)
    return respond(request, content, _verdict_headers(conversion))


@router.get(
    "/{conversion_id}/report",
    summary="Read the report",
    response_class=Response,
    responses={
        200: {
            "description": "The report; its JSON Schema is at /v1/schemas/report",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/html": {"schema": {"type": "string"}},
            },
        }
    },
)
async def get_report(
    conversion_id: ConversionId,
    request: Request,
    service: ServiceDependency,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """JSON, or a page for people when `Accept` prefers text/html. A failed conversion has one if it got that far."""
    conversion, files = await results(service, conversion_id)
    file = file_of(conversion, files, "report")
    headers = {"Vary": "Accept"}
    if not prefers_html(accept):
        await refuse_lost(service, file)
        return respond(request, replace(_stored(service, file), disposition="inline"), headers)
    page = await page_of(service, file, _hosted_links(conversion, files), hosted=True)
    etag = f'"{hashlib.sha256(page).hexdigest()}"'

    async def stream(start: int, end: int) -> AsyncIterator[Chunk]:
        yield page[start:end]

    content = Content("report.html", "text/html; charset=utf-8", len(page), etag, stream, disposition="inline")
    return respond(request, content, {**headers, "Content-Security-Policy": PAGE_POLICY})


@router.get(
    "/{conversion_id}/graph",
    summary="Read the graph without weights",
    response_class=Response,
    responses=_file_responses("application/octet-stream", "application/onnx"),
)
async def get_graph(conversion_id: ConversionId, request: Request, service: ServiceDependency) -> Response:
    """The artifact's ONNX model with names, shapes and types of its weights and none of their values, for viewers.

    There is one whatever the verdict, for it computes nothing; 409 for other targets than ONNX.
    """
    conversion, files = await results(service, conversion_id)
    file = file_of(conversion, files, "artifact")
    if not shows_graph(conversion.target):
        raise NotReady("Only ONNX artifacts are shown as a graph.", hint="Convert to onnx to see the graph.")
    await refuse_lost(service, file)
    try:
        async with service.graphs:
            graph = await weight_free(reader_of(service, file), file.bytes)
    except NotReadable as error:
        raise NotReady(f"The graph cannot be shown: {error}.", hint="Download the artifact and open it.") from None

    async def stream(start: int, end: int) -> AsyncIterator[Chunk]:
        yield graph[start:end]

    etag = f'"graph-{file.sha256}"'
    return respond(request, Content(file.filename, "application/onnx", len(graph), etag, stream, disposition="inline"))


@router.get(
    "/{conversion_id}/statement",
    summary="Get the signed statement",
    response_class=Response,
    responses=_file_responses(MEDIA_TYPES["statement"]),
)
async def get_statement(
    conversion_id: ConversionId, request: Request, service: ServiceDependency, range_header: RangeHeader = None
) -> Response:
    """What the service proved of the artifact: an in-toto statement in a DSSE envelope, signed with a key of
    /.well-known/recast-key. Its subject is the artifact's sha256.
    """
    del range_header
    conversion, files = await results(service, conversion_id)
    file = file_of(conversion, files, "statement")
    await refuse_lost(service, file)
    return respond(request, replace(_stored(service, file), disposition="inline"), _verdict_headers(conversion))


def prefers_html(accept: str | None) -> bool:
    """Whether an Accept header names text/html with a higher weight than application/json or */*."""
    weights = {"text/html": 0.0, "application/json": 0.0}
    for choice in (accept or "").split(","):
        kind, *parameters = (piece.strip().lower() for piece in choice.split(";"))
        weight = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if kind in weights:
            weights[kind] = value
    return weights["text/html"] > weights["application/json"]


async def results(service: Service, conversion_id: str) -> tuple[Conversion, dict[str, ConversionFile]]:
    """A conversion and its files by role. Raises NotFound, Expired."""
    async with service.database.reading() as session:
        found = await rows.find_with_files(session, conversion_id)
    conversion = found.conversion
    if conversion.expired_at is not None:
        raise Expired(f"The files of this conversion were kept until {conversion.expired_at:%Y-%m-%dT%H:%M:%SZ}.")
    return conversion, {file.role: file for file in found.files}


def file_of(conversion: Conversion, files: dict[str, ConversionFile], role: str) -> ConversionFile:
    """The file of that role; NotReady that says where the conversion stands."""
    if role in files:
        return files[role]
    if not conversion.state.final:
        raise NotReady(f"The conversion is {conversion.state.value}.", retry_after=int(POLL_SECONDS))
    if conversion.problem is None:
        raise NotReady(f"The conversion has no {role}.")
    problem = Problem.kept(conversion.problem)
    raise NotReady(
        f"The conversion ended {conversion.state.value}: {problem.detail}",
        hint=problem.hint,
        stage=problem.stage,
        problem=shown_problem(problem),
    )


def _is_proved(conversion: Conversion) -> bool:
    return conversion.state == "succeeded" or conversion.verdict in PROVED


def reader_of(service: Service, file: ConversionFile) -> Read:
    """Reads parts of a file out of the store."""

    async def read(start: int, end: int) -> bytes:
        return b"".join([bytes(chunk) async for chunk in service.store.stream(file.sha256, start, end)])

    return read


def _refuse_unverified(conversion: Conversion, asked_for: bool) -> None:
    if _is_proved(conversion) or asked_for:
        return
    raise Unverified(f"Verification ended with verdict {conversion.verdict or 'none'}.")


def _verdict_headers(conversion: Conversion) -> dict[str, str]:
    return {"X-Recast-Verdict": conversion.verdict or "none"}


def _stored(service: Service, file: ConversionFile) -> Content:
    def stream(start: int, end: int) -> AsyncIterator[Chunk]:
        return service.store.stream(file.sha256, start, end)

    return Content(file.filename, file.media_type, file.bytes, f'"{file.sha256}"', stream, file.sha256)


def _hosted_links(conversion: Conversion, files: dict[str, ConversionFile]) -> dict[str, str]:
    """Where the report's page leads while the service shows it."""
    path, quarantined = path_of(conversion.id), "" if _is_proved(conversion) else "?unverified=true"
    links = {"The conversion": f"/conversions/{conversion.id}"}
    if "artifact" in files:
        links |= {
            f"Download {files['artifact'].filename}": f"{path}/artifact{quarantined}",
            "Bundle": f"{path}/bundle{quarantined}",
        }
    if "statement" in files:
        links["Signed statement"] = f"{path}/statement"
    return {**links, "The checkpoint": f"/checkpoints/{conversion.checkpoint_sha256}"}


async def _bundle(service: Service, conversion: Conversion, files: dict[str, ConversionFile]) -> Bundle:
    listed = [files[role] for role in BUNDLE_ORDER if role in files]
    page = await page_of(service, files["report"], {file.filename: file.filename for file in listed})
    return make_bundle(conversion.id, [await _bundled(service, file) for file in listed], page)


async def _bundled(service: Service, file: ConversionFile) -> BundledFile:
    """The file with its CRC-32, which is computed when the first bundle needs it and then kept."""
    crc32 = file.crc32
    await refuse_lost(service, file)
    if crc32 is None:
        crc32 = 0
        async for chunk in service.store.stream(file.sha256):
            crc32 = await asyncio.to_thread(zlib.crc32, chunk, crc32)
        async with service.database.transaction() as session:
            await rows.record_crc32(session, file, crc32)
    return BundledFile(file.role, file.filename, file.sha256, file.bytes, crc32, file.media_type)
