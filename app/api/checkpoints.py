"""Checkpoints: uploading weights, and what is inside them."""

import math
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel

from app.api.conversion_resource import shown_problem
from app.api.labels import MAX_NAME, LabelQuery, checked_name, labels_of
from app.api.parameters import Time, link_next
from app.api.preferences import Patience
from app.api.problems import PROBLEM_RESPONSES, Told
from app.api.readable import ReadableRouter
from app.api.service import Service, ServiceDependency
from app.api.uploads import arriving_upload
from app.database import checkpoints as rows
from app.database.checkpoints import CheckpointFilter
from app.database.tables import CheckpointOwner
from app.domain.checkpoint import READING_CUT_SHORT, CheckpointInspection, ParameterReport, TensorInfo
from app.domain.errors import (
    InUse,
    NotReady,
    Problem,
    UnknownCheckpoint,
)
from app.jobs import queue

router = ReadableRouter(prefix="/v1/checkpoints", tags=["checkpoints"], responses=PROBLEM_RESPONSES)

READ_BEFORE_ANSWER = 4 << 20
"""Bytes up to which an upload is answered only when its content was read, so that a foreign file is refused at once."""
READING_PATIENCE = 10
"""Seconds that a request waits for a checkpoint to be read when it does not say how long."""
LISTED_TENSORS = 1000
LARGEST_PAGE = 200
CURSOR = "^[0-9]{1,16}\\.[0-9a-f]{64}$"

Sha256 = Annotated[str, AfterValidator(str.lower), Path(description="sha256 of the file, hexadecimal")]

RAW_BODY = {"schema": {"type": "string", "format": "binary"}}
FORM_BODY = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary", "description": "The checkpoint"}},
    }
}
RAW: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/octet-stream": RAW_BODY}}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": FORM_BODY, "application/octet-stream": RAW_BODY},
    }
}


class InspectedTensor(BaseModel):
    """One tensor of a state dict; ``count`` is its number of elements."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    bytes: int
    trainable: bool | None
    """Null while no conversion has loaded the file, or when its module has no tensor of that name."""
    tied_to: str | None


class CheckpointSummary(BaseModel):
    """One line of the list. ``usable``: false when reading found that the file is no checkpoint."""

    id: str
    sha256: str
    bytes: int
    filename: str | None
    name: str | None
    labels: dict[str, str]
    usable: bool
    created_at: datetime
    links: dict[str, str]


class CheckpointList(BaseModel):
    """Newest first."""

    items: list[CheckpointSummary]
    next_cursor: str | None
    total: int
    """Checkpoints that match, on all pages."""


class CheckpointResource(BaseModel):
    """An uploaded file and what reading it told. The members from ``format`` on are null until it was read."""

    id: str
    name: str | None
    labels: dict[str, str]
    sha256: str
    bytes: int
    filename: str | None
    created_at: datetime
    inspected_at: datetime | None
    problem: dict[str, Any] | None
    """Why the file is no checkpoint."""
    waiting_for: str | None
    """The part of the service that is away and that reading the file waits for: store or disk_space."""
    format: str | None
    nesting: list[str] | None
    candidates: list[str] | None
    tensor_count: int | None
    parameter_count: int | None
    tensor_bytes: int | None
    dtypes: dict[str, int] | None
    notes: list[str] | None
    tensors: list[InspectedTensor] | None
    """The first 1000; all of them are under ``links.parameters``."""
    links: dict[str, str]


UPLOAD_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file is known; it is kept as long as a new one", "model": CheckpointResource},
}


class ParameterTotals(BaseModel):
    tensors: int
    elements: int
    bytes: int
    trainable: int | None
    """Elements that train in the module that last took the file; null while no conversion has loaded it."""


class CheckpointParameters(BaseModel):
    sha256: str
    totals: ParameterTotals
    tensors: list[InspectedTensor]


@router.post("", status_code=201, summary="Upload a checkpoint", openapi_extra=BODY, responses=UPLOAD_RESPONSES)
@router.put(
    "",
    status_code=201,
    summary="Upload a checkpoint's bytes",
    openapi_extra=RAW,
    responses=UPLOAD_RESPONSES,
    operation_id="put_checkpoint",
)
async def upload_checkpoint(
    *,
    request: Request,
    response: Response,
    service: ServiceDependency,
    patience: Patience,
    name: Annotated[str | None, Query(max_length=MAX_NAME, description="What people shall call it")] = None,
    label: LabelQuery = None,
) -> CheckpointResource:
    """Send the file as a form's `file` or as the raw body (`curl -T`).

    `Repr-Digest: sha-256=:…:` or `X-Content-SHA256` is verified before the file is kept. 201 when the file is new, 200
    when it is known. Files up to 4 MiB are read before the answer, larger ones with `Prefer: wait=N`; one that is no
    checkpoint is then refused. Without that its `problem` shows in GET.
    """
    told = checked_name(name), labels_of(label or ()) or None
    async with arriving_upload(request, service) as (stored, filename):
        registered = await queue.register_checkpoint(service.database, stored, filename, name=told[0], labels=told[1])
    checkpoint = registered.checkpoint
    if patience is None and stored.bytes <= READ_BEFORE_ANSWER:
        patience = READING_PATIENCE
    if patience and not checkpoint.read:
        checkpoint = await service.changes.wait_for_inspection(stored.sha256, patience, service.database.project)
    await refuse_foreign(service, checkpoint)
    response.status_code = 201 if registered.created else 200
    response.headers["Location"] = f"/v1/checkpoints/{stored.sha256}"
    return checkpoint_resource(checkpoint)


@router.get("", summary="List checkpoints")
async def list_checkpoints(
    *,
    request: Request,
    response: Response,
    service: ServiceDependency,
    label: LabelQuery = None,
    created_after: Annotated[Time | None, Query()] = None,
    created_before: Annotated[Time | None, Query()] = None,
    cursor: Annotated[str | None, Query(pattern=CURSOR, description="next_cursor of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 50,
) -> CheckpointList:
    """Newest first. A label filter may be given several times; all of them must match."""
    wanted = CheckpointFilter(
        labels=labels_of(label or ()),
        created_after=created_after,
        created_before=created_before,
        before=None if cursor is None else place_of(cursor),
    )
    async with service.database.transaction() as session:
        found = await rows.newest(session, wanted, limit + 1)
        total = await rows.count(session, wanted)
    page = found[:limit]
    next_cursor = cursor_of(page[-1][0].sha256, page[-1][0].created_at) if len(found) > limit else None
    link_next(request, response, next_cursor)
    items = [_summary(owner, size, usable) for owner, size, usable in page]
    return CheckpointList(items=items, next_cursor=next_cursor, total=total)


@router.get("/{sha256}", summary="Inspect a checkpoint")
async def get_checkpoint(
    sha256: Sha256, response: Response, service: ServiceDependency, patience: Patience
) -> CheckpointResource:
    """Format, nesting, tensors, types and sizes. Waits a few seconds for a file that is being read."""
    checkpoint = await _read(service, sha256, patience)
    if not checkpoint.read:
        response.headers["Retry-After"] = "1"
    return checkpoint_resource(checkpoint)


@router.get("/{sha256}/parameters", summary="List a checkpoint's tensors")
async def get_parameters(sha256: Sha256, service: ServiceDependency, patience: Patience) -> CheckpointParameters:
    """Name, shape, type and number of elements of every tensor, and totals."""
    checkpoint = await _read(service, sha256, patience)
    if checkpoint.problem is not None:
        raise Told(Problem.kept(checkpoint.problem))
    if checkpoint.inspection is None:
        raise NotReady("The file has not been read yet.", hint="Ask again.", retry_after=1)
    inspection = CheckpointInspection.kept(checkpoint.inspection)
    module = _module(checkpoint)
    tensors = inspected_tensors(inspection.tensors, module)
    totals = ParameterTotals(
        tensors=len(tensors),
        elements=inspection.parameter_count,
        bytes=inspection.tensor_bytes,
        trainable=None if module is None else module.trainable,
    )
    return CheckpointParameters(sha256=sha256, totals=totals, tensors=tensors)


@router.delete("/{sha256}", status_code=204, summary="Delete a checkpoint")
async def delete_checkpoint(sha256: Sha256, service: ServiceDependency) -> None:
    """409 while a conversion that has not finished needs it. Finished conversions keep their artifacts."""
    async with service.database.transaction() as session:
        await rows.remove(session, sha256)


def cursor_of(sha256: str, created_at: datetime) -> str:
    """Where a list goes on after this file."""
    return f"{int(created_at.timestamp() * 1_000_000)}.{sha256}"


def place_of(cursor: str) -> tuple[datetime, str]:
    """What such a cursor means to a filter."""
    microseconds, sha256 = cursor.split(".")
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(microseconds)), sha256


def _summary(owner: CheckpointOwner, size: int, usable: bool) -> CheckpointSummary:
    path = f"/v1/checkpoints/{owner.sha256}"
    return CheckpointSummary(
        id=owner.sha256,
        sha256=owner.sha256,
        bytes=size,
        filename=owner.filename,
        name=owner.name,
        labels=owner.labels,
        usable=usable,
        created_at=owner.created_at,
        links={"self": path, "parameters": f"{path}/parameters"},
    )


def checkpoint_resource(row: CheckpointOwner) -> CheckpointResource:
    """The file as its project sees it."""
    read = None if row.inspection is None else CheckpointInspection.kept(row.inspection)
    path = f"/v1/checkpoints/{row.sha256}"
    return CheckpointResource(
        id=row.sha256,
        name=row.name,
        labels=row.labels,
        sha256=row.sha256,
        bytes=row.file.bytes,
        filename=row.filename,
        created_at=row.created_at,
        inspected_at=row.inspected_at,
        problem=None if row.problem is None else shown_problem(Problem.kept(row.problem)),
        waiting_for=row.file.waiting_for,
        format=read and read.format,
        nesting=read and list(read.nesting),
        candidates=read and list(read.candidates),
        tensor_count=read and len(read.tensors),
        parameter_count=read and read.parameter_count,
        tensor_bytes=read and read.tensor_bytes,
        dtypes=read and read.dtypes,
        notes=read and list(read.notes),
        tensors=read and inspected_tensors(read.tensors[:LISTED_TENSORS], _module(row)),
        links={"self": path, "parameters": f"{path}/parameters"},
    )


def inspected_tensors(tensors: Sequence[TensorInfo], module: ParameterReport | None) -> list[InspectedTensor]:
    """The file's tensors; what trains is known of those whose names are also the module's."""
    trainable = {} if module is None else {tensor.name: tensor.trainable for tensor in module.tensors}
    return [
        InspectedTensor(
            count=math.prod(tensor.shape), **{**tensor.model_dump(), "trainable": trainable.get(tensor.name)}
        )
        for tensor in tensors
    ]


def _module(row: CheckpointOwner) -> ParameterReport | None:
    return None if row.parameters is None else ParameterReport.kept(row.parameters)


async def _read(service: Service, sha256: str, patience: int | None) -> CheckpointOwner:
    """The checkpoint, read if it was not yet, as far as patience reaches."""
    checkpoint = await queue.request_inspection(service.database, sha256)
    if checkpoint.read:
        return checkpoint
    patience = READING_PATIENCE if patience is None else patience
    return await service.changes.wait_for_inspection(sha256, patience, service.database.project)


async def refuse_foreign(service: Service, checkpoint: CheckpointOwner) -> None:
    """Raise what is wrong with the file, and leave nothing of it behind, where reading it found no checkpoint.

    A reading that was cut short (no memory, no time) says nothing of the file, which is then kept.
    """
    if checkpoint.problem is None:
        return
    problem = Problem.kept(checkpoint.problem)
    if problem.code in READING_CUT_SHORT:
        return
    with suppress(UnknownCheckpoint, InUse):
        async with service.database.transaction() as session:
            await rows.remove(session, checkpoint.sha256)
    raise Told(problem)
