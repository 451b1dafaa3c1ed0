"""Resumable uploads: tus 1.0 (https://tus.io/protocols/resumable-upload), with the extensions creation, checksum,
expiration and termination. At any replica, each request at another one.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import Path, Request, Response
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import upload_session
from app.api.bodies import parse_object, refuse_announced_size
from app.api.checkpoints import READ_BEFORE_ANSWER, READING_PATIENCE, refuse_foreign
from app.api.conversion_resource import shown_problem
from app.api.digests import SHA256_HEX
from app.api.filenames import safe_filename
from app.api.labels import checked_labels, checked_name
from app.api.preferences import Patience
from app.api.problems import PROBLEM_RESPONSES, Told
from app.api.readable import ReadableRouter
from app.api.service import Service, ServiceDependency, WholeService
from app.api.upload_places import place
from app.api.upload_session import Checksum
from app.database import uploads
from app.database.tables import Upload
from app.domain.errors import EmptyFile, InvalidRequest, PayloadTooLarge, Problem, RecastError

router = ReadableRouter(prefix="/v1/uploads", tags=["checkpoints"], responses=PROBLEM_RESPONSES)

VERSION = "1.0.0"
EXTENSIONS = "creation,checksum,expiration,termination"
ALGORITHMS = ("sha1", "sha256", "sha512", "md5")
CONTENT_TYPE = "application/offset+octet-stream"
MAX_TOLD = 8192
"""Characters of an Upload-Metadata header, which are kept and given back."""
NUMBER = re.compile(r"\d{1,18}", re.ASCII)

UploadId = Annotated[str, Path(description="upl_ and 32 hexadecimal digits")]


def _header(name: str, description: str, *, required: bool = True, **schema: Any) -> dict[str, Any]:
    """The OpenAPI description of a header that is read by hand, as its absence has a code of its own."""
    described = {"type": "string", **schema}
    return {"name": name, "in": "header", "required": required, "description": description, "schema": described}


_VERSION = _header("Tus-Resumable", "The version of the protocol.", enum=[VERSION])
_LENGTH = _header("Upload-Length", "Bytes of the whole file.", type="integer", minimum=1)
_METADATA = _header("Upload-Metadata", "Pairs of a name and base64, with commas between them.", required=False)
_OFFSET = _header("Upload-Offset", "Bytes that have arrived before.", type="integer", minimum=0)
_CHECKSUM = _header(
    "Upload-Checksum",
    "Algorithm and base64 of the digest of this request's bytes.",
    required=False,
    pattern="^(sha1 [A-Za-z0-9+/]{27}=|md5 [A-Za-z0-9+/]{22}==|sha256 [A-Za-z0-9+/]{43}=|sha512 [A-Za-z0-9+/]{86}==)$",
)
_METHOD = _header("X-HTTP-Method-Override", "What is meant.", enum=["PATCH", "DELETE"])


class UnsupportedVersion(RecastError):
    code, status, title = "unsupported_tus_version", 412, "The request is not of a version of tus that is spoken here"
    hint = f"Send Tus-Resumable: {VERSION}."


class OffsetMismatch(RecastError):
    code, status, title = "offset_mismatch", 409, "The upload does not stand where the request goes on"
    hint = "HEAD tells the offset; go on from there."


class UnsupportedChecksum(RecastError):
    code, status, title = "unsupported_checksum", 400, "The checksum cannot be read"
    hint = f"Send Upload-Checksum: ALGORITHM BASE64, with one of {', '.join(ALGORITHMS)}."


class UploadExpired(RecastError):
    code, status, title = "upload_expired", 410, "The upload is no longer kept"
    hint = "Begin a new one."


class WrongContentType(RecastError):
    code, status, title = "wrong_content_type", 415, "The body is of another type than this operation takes"
    hint = f"Send Content-Type: {CONTENT_TYPE}."


class UploadResource(BaseModel):
    """A resumable upload. ``offset``: bytes that have arrived; ``length``: of the whole file."""

    id: str
    offset: int
    length: int
    complete: bool
    """It has ended: ``checkpoint`` names the file, or ``problem`` says why it is none."""
    checkpoint: str | None
    problem: dict[str, Any] | None
    filename: str | None
    created_at: datetime
    expires: datetime
    links: dict[str, str | None]


class TusHeaders:
    """Puts the version on every answer about uploads, as the protocol demands."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        is_ours = scope["type"] == "http" and scope["path"].startswith("/v1/uploads")
        await self.app(scope, receive, send_with_version if is_ours else send)


@router.api_route("", methods=["OPTIONS"], include_in_schema=False)
@router.api_route("/{upload_id}", methods=["OPTIONS"], include_in_schema=False)
async def describe_uploads(service: WholeService) -> Response:
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(service.settings.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "",
    status_code=201,
    summary="Begin a resumable upload",
    response_class=Response,
    openapi_extra={"parameters": [_VERSION, _LENGTH, _METADATA]},
)
async def create_upload(request: Request, service: ServiceDependency) -> Response:
    """tus 1.0: `Upload-Length`, and `Upload-Metadata` with `filename`, `name`, `labels` (JSON) and `sha256` if wanted.

    `Location` is where to send the bytes, `Upload-Expires` until when.
    """
    _refuse_other_versions(request)
    told = request.headers.get("upload-metadata")
    members = _metadata(told)
    length = _number(request, "Upload-Length")
    if length > service.settings.max_upload_bytes:
        most = service.settings.max_upload_bytes
        raise PayloadTooLarge(f"The upload has {length} bytes; at most {most} are accepted.", limit=most)
    if length == 0:
        raise EmptyFile("The upload holds no bytes.")
    service.uploads.refuse_full_disk(length)
    labels = parse_object(members["labels"], "labels") if "labels" in members else None
    sha256 = members.get("sha256", "").lower() or None
    if sha256 is not None and not SHA256_HEX.fullmatch(sha256):
        raise InvalidRequest("sha256 in Upload-Metadata must be 64 hexadecimal digits.")
    async with service.database.transaction() as session:
        upload = await uploads.create(
            session,
            length=length,
            kept=service.settings.uploads_kept,
            told=told,
            filename=safe_filename(members.get("filename")),
            name=checked_name(members.get("name")),
            labels=None if labels is None else checked_labels(labels),
            expected_sha256=sha256,
        )
    headers = {"Location": f"/v1/uploads/{upload.id}", "Upload-Offset": "0", "Upload-Expires": _expiry(upload)}
    return Response(status_code=201, headers=headers)


@router.head(
    "/{upload_id}",
    summary="Ask how much of an upload has arrived",
    response_class=Response,
    openapi_extra={"parameters": [_VERSION]},
)
async def head_upload(upload_id: UploadId, request: Request, service: ServiceDependency) -> Response:
    """tus 1.0: `Upload-Offset` and `Upload-Length`. A connection that still sends to the upload is cut off."""
    _refuse_other_versions(request)
    async with service.database.transaction() as session:
        upload = _living(await uploads.lease(session, upload_id))
    upload_session.resume(service, upload)
    return Response(status_code=200, headers=_standing(upload))


@router.get("/{upload_id}", summary="Get a resumable upload")
async def get_upload(upload_id: UploadId, service: ServiceDependency, patience: Patience) -> UploadResource:
    """How far it is, and what became of it: `checkpoint` is the sha256 that conversions name.

    With `Prefer: wait=N` an upload that has arrived is answered when its checkpoint is there.
    """
    async with service.database.transaction() as session:
        upload = _living(await uploads.find(session, upload_id))
    upload_session.resume(service, upload)
    if patience and upload.ended_at is None:
        await upload_session.wait(service, upload.id, patience)
        async with service.database.transaction() as session:
            upload = await uploads.find(session, upload_id)
    return _resource(upload)


@router.patch(
    "/{upload_id}",
    status_code=204,
    summary="Send bytes of a resumable upload",
    response_class=Response,
    openapi_extra={
        "parameters": [_VERSION, _OFFSET, _CHECKSUM],
        "requestBody": {
            "required": True,
            "content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
async def patch_upload(
    upload_id: UploadId, request: Request, service: ServiceDependency, patience: Patience
) -> Response:
    """tus 1.0: bytes from `Upload-Offset` on, with `Upload-Checksum` if wanted (`sha1`, `sha256`, `sha512`, `md5`).

    What arrived before a connection broke off is kept, unless it has a checksum. The answer to the last bytes comes
    when the file is a checkpoint, which `Content-Location` names; what is no checkpoint is refused then.
    """
    _refuse_other_versions(request)
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != CONTENT_TYPE:
        raise WrongContentType(f"The type is {request.headers.get('content-type', 'missing')[:100]!r}.")
    offset, checksum = _number(request, "Upload-Offset"), _checksum(request.headers)
    async with place(request, service):
        async with service.database.transaction() as session:
            upload = _living(await uploads.lease(session, upload_id))
        if upload.problem is not None:
            raise Told(Problem.kept(upload.problem))
        if offset != upload.received:
            raise _mismatch(upload.received)
        refuse_announced_size(request, upload.length - upload.received)
        try:
            received = await upload_session.receive(service, upload, request, checksum)
        except uploads.LeaseLost:
            async with service.database.transaction() as session:
                raise _mismatch((await uploads.find(session, upload_id)).received) from None
    if received == upload.length:
        await upload_session.finish(service, upload.id)
        await _refuse_what_is_none(service, upload, READING_PATIENCE if patience is None else patience)
    async with service.database.transaction() as session:
        upload = await uploads.find(session, upload_id)
    headers = _standing(upload)
    if upload.checkpoint_sha256 is not None:
        headers["Content-Location"] = f"/v1/checkpoints/{upload.checkpoint_sha256}"
    return Response(status_code=204, headers=headers)


@router.delete(
    "/{upload_id}",
    status_code=204,
    summary="End a resumable upload",
    response_class=Response,
    openapi_extra={"parameters": [_VERSION]},
)
async def delete_upload(upload_id: UploadId, request: Request, service: ServiceDependency) -> Response:
    """tus 1.0: forget it and what has arrived. A checkpoint that it has become stays."""
    _refuse_other_versions(request)
    async with service.database.transaction() as session:
        await uploads.remove(session, upload_id)
    return Response(status_code=204)


@router.post(
    "/{upload_id}",
    status_code=204,
    summary="Send bytes, or end an upload, without PATCH and DELETE",
    response_class=Response,
    openapi_extra={"parameters": [_VERSION, _METHOD]},
)
async def post_upload(
    upload_id: UploadId, request: Request, service: ServiceDependency, patience: Patience
) -> Response:
    """For clients that can send neither PATCH nor DELETE, as the protocol demands."""
    meant = request.headers.get("x-http-method-override", "").upper()
    if meant == "PATCH":
        return await patch_upload(upload_id, request, service, patience)
    if meant == "DELETE":
        return await delete_upload(upload_id, request, service)
    raise InvalidRequest("POST here is for X-HTTP-Method-Override: PATCH or DELETE.")


async def _refuse_what_is_none(service: Service, upload: Upload, patience: int) -> None:
    """As small files of other uploads: one that reading finds to be no checkpoint is refused at once."""
    async with service.database.transaction() as session:
        sha256 = (await uploads.find(session, upload.id)).checkpoint_sha256
    if sha256 is None or upload.length > READ_BEFORE_ANSWER:
        return
    checkpoint = await service.changes.wait_for_inspection(sha256, patience, service.database.project)
    try:
        await refuse_foreign(service, checkpoint)
    except RecastError as error:
        async with service.database.transaction() as session:
            await uploads.end(session, upload.id, service.settings.uploads_kept, problem=error.problem())
        raise


def _refuse_other_versions(request: Request) -> None:
    told = request.headers.get("tus-resumable")
    if told != VERSION:
        raise UnsupportedVersion(f"Tus-Resumable is {told!r}.", tus_version=VERSION)


def _living(upload: Upload) -> Upload:
    """Raises UploadExpired."""
    if upload.expires_at < datetime.now(UTC):
        raise UploadExpired(f"It was kept until {upload.expires_at:%Y-%m-%dT%H:%M:%SZ}.")
    return upload


def _standing(upload: Upload) -> dict[str, str]:
    headers = {
        "Upload-Offset": str(upload.received),
        "Upload-Length": str(upload.length),
        "Upload-Expires": _expiry(upload),
    }
    return {**headers, "Upload-Metadata": upload.told} if upload.told else headers


def _expiry(upload: Upload) -> str:
    return format_datetime(upload.expires_at.astimezone(UTC), usegmt=True)


def _mismatch(offset: int) -> OffsetMismatch:
    return OffsetMismatch(f"{offset} bytes have arrived.", upload_offset=offset)


def _number(request: Request, name: str) -> int:
    told = request.headers.get(name, "")
    if not NUMBER.fullmatch(told):
        raise InvalidRequest(f"{name} must be a whole number of bytes, not {told[:100]!r}.")
    return int(told)


def _metadata(told: str | None) -> Mapping[str, str]:
    """The pairs of an Upload-Metadata header. Raises InvalidRequest."""
    if told is None:
        return {}
    if len(told) > MAX_TOLD:
        raise InvalidRequest(f"Upload-Metadata may have {MAX_TOLD} characters.")
    members = {}
    for pair in filter(None, (one.strip() for one in told.split(","))):
        key, _, value = pair.partition(" ")
        try:
            members[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError):
            raise InvalidRequest(f"{key[:100]!r} in Upload-Metadata is not base64 of UTF-8.") from None
        if "\0" in members[key]:
            raise InvalidRequest(f"{key[:100]!r} in Upload-Metadata holds a NUL.")
    return members


def _checksum(headers: Headers) -> Checksum | None:
    """Raises UnsupportedChecksum."""
    told = headers.get("upload-checksum")
    if told is None:
        return None
    algorithm, _, encoded = told.partition(" ")
    if algorithm not in ALGORITHMS:
        raise UnsupportedChecksum(f"The algorithm is {algorithm[:40]!r}.")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise UnsupportedChecksum(f"That is no {algorithm} in base64.")
    return Checksum(algorithm, digest)


def _resource(upload: Upload) -> UploadResource:
    path = f"/v1/uploads/{upload.id}"
    checkpoint = upload.checkpoint_sha256
    return UploadResource(
        id=upload.id,
        offset=upload.received,
        length=upload.length,
        complete=upload.ended_at is not None,
        checkpoint=checkpoint,
        problem=None if upload.problem is None else shown_problem(Problem.kept(upload.problem)),
        filename=upload.filename,
        created_at=upload.created_at,
        expires=upload.expires_at,
        links={"self": path, "checkpoint": checkpoint and f"/v1/checkpoints/{checkpoint}"},
    )
