"""From a request's body, JSON or form, to a queued conversion."""

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from app.api.bodies import json_object, refuse_announced_size
from app.api.conversion_request import (
    FILE_FIELDS,
    TEXT_FIELDS,
    ConversionRequest,
    conversion_request,
    form_members,
    refuse_unknown_members,
)
from app.api.digests import SHA256_HEX, told_sha256
from app.api.multipart import Part
from app.api.service import Service
from app.api.uploads import FORM_OVERHEAD, chosen, form_reader, is_form, recognised
from app.database import conversions
from app.database.conversions import NewConversion
from app.database.idempotency import Idempotency
from app.domain.catalog import Catalog
from app.domain.errors import InvalidRequest, RecastError
from app.domain.versions import library_versions, service_version
from app.jobs import queue
from app.jobs.queue import Submitted
from app.storage.objects import StoredObject

MAX_PROBES = 256 << 20
"""Bytes of a client's own probes (npz)."""
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True)
class Received:
    """A body that was read: what it asks for, and the files that came with it or that it names."""

    members: Mapping[str, Any]
    checkpoint_sha256: str
    filename: str | None = None
    probes_sha256: str | None = None


@dataclass(frozen=True)
class _ReceivedFile:
    stored: StoredObject
    filename: str | None


async def submit_request(request: Request, service: Service) -> Submitted:
    """Read the body, check it, and queue the conversion or find the one it stands for.

    Raises the errors of reading and checking, UnknownCheckpoint, IdempotencyConflict, QueueFull.
    """
    key = _idempotency_key(request)
    catalog = await service.catalog.current()
    if is_form(request):
        with service.uploads.slot(request):
            received = await _read_form(request, service, catalog)
    else:
        received = await _read_json(request)
    try:
        asked = await asyncio.to_thread(conversion_request, received.members, catalog)
    except RecastError as error:
        if is_form(request):
            error.extra["checkpoint"] = received.checkpoint_sha256
        raise
    digest = asked.digest(received.checkpoint_sha256, received.probes_sha256)
    new = NewConversion(
        checkpoint_sha256=received.checkpoint_sha256,
        architecture=asked.architecture,
        options=asked.options,
        architecture_options=asked.architecture_options,
        checkpoint_filename=received.filename,
        dedup_key=_dedup_key(asked, digest, catalog),
        probes_sha256=received.probes_sha256,
        accept=asked.accept,
        name=asked.name,
        labels=asked.labels,
        queue_limit=service.settings.max_queued,
    )
    idempotency = None if key is None else Idempotency(key, asked.idempotency_digest(digest))
    return await queue.submit(service.database, new, key=idempotency, reuse_finished=not asked.force)


async def _read_json(request: Request) -> Received:
    if not request.headers.get("content-type", "application/json").lower().startswith("application/json"):
        raise InvalidRequest(
            "The body must be application/json or multipart/form-data.",
            hint="curl -F file=@weights.pth -F architecture=... -F target=onnx",
        )
    members = await json_object(request)
    refuse_unknown_members(set(members), TEXT_FIELDS)
    return Received(members, _named_checkpoint(members))


async def _read_form(request: Request, service: Service, catalog: Catalog) -> Received:
    """The form as it arrives. A file that came before something wrong is kept, and the error names it."""
    limit = service.settings.max_upload_bytes
    refuse_announced_size(request, limit + MAX_PROBES + FORM_OVERHEAD)
    expected = told_sha256(request.headers)
    fields: dict[str, str] = {}
    files: dict[str, _ReceivedFile] = {}
    try:
        async for sent in form_reader(request).parts():
            refuse_unknown_members({sent.name}, TEXT_FIELDS | FILE_FIELDS)
            if sent.name in fields or sent.name in files:
                raise InvalidRequest(f"The form has more than one field called {sent.name}.")
            if sent.name in TEXT_FIELDS:
                fields[sent.name] = await sent.text()
            elif (part := await chosen(sent)) is not None:
                await _refuse_early(request, service, fields, catalog)
                files[part.name] = await _store_part(part, service, limit, expected)
        return await _received_form(fields, files, service)
    except RecastError as error:
        if "file" in files:
            await _keep(files["file"], service)
            error.extra["checkpoint"] = files["file"].stored.sha256
        raise


async def _received_form(fields: Mapping[str, str], files: Mapping[str, _ReceivedFile], service: Service) -> Received:
    members = form_members(fields)
    probes = files["probes"].stored.sha256 if "probes" in files else None
    if "file" not in files:
        return Received(members, _named_checkpoint(members), probes_sha256=probes)
    if "checkpoint" in members:
        raise InvalidRequest("Send either file or checkpoint, not both.")
    await _keep(files["file"], service)
    return Received(members, files["file"].stored.sha256, files["file"].filename, probes)


async def _keep(file: _ReceivedFile, service: Service) -> None:
    await queue.register_checkpoint(service.database, file.stored, file.filename, inspect=False)


async def _store_part(part: Part, service: Service, limit: int, expected: str | None) -> _ReceivedFile:
    if part.name == "probes":
        return _ReceivedFile(await service.store.receive(part.chunks, limit=MAX_PROBES), part.filename)
    chunks = service.uploads.watched(recognised(part.chunks))
    return _ReceivedFile(await service.store.receive(chunks, limit=limit, expected_sha256=expected), part.filename)


async def _refuse_early(request: Request, service: Service, fields: Mapping[str, str], catalog: Catalog) -> None:
    """Where all that can be checked came before the file, a wrong request need not wait for the file.

    Nor need one that a full queue will not take; with a key it may repeat an earlier one, which needs no place.
    """
    if _idempotency_key(request) is None:
        async with service.database.transaction() as session:
            await conversions.refuse_full_queue(session, service.settings.max_queued)
    members = form_members(fields)
    if "architecture" in members and "target" in members:
        await asyncio.to_thread(conversion_request, members, catalog)
    elif "architecture" in members:
        await asyncio.to_thread(catalog.get, members["architecture"])


def _named_checkpoint(members: Mapping[str, Any]) -> str:
    value = members.get("checkpoint")
    if value is None:
        raise InvalidRequest(
            "checkpoint is missing.", hint="Name an uploaded checkpoint by its sha256, or send the file in a form."
        )
    sha256 = value.removeprefix("sha256:").lower() if isinstance(value, str) else ""
    if not SHA256_HEX.fullmatch(sha256):
        raise InvalidRequest("checkpoint must be the sha256 of an uploaded file: 64 hexadecimal digits.")
    return sha256


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    return key


def _dedup_key(asked: ConversionRequest, digest: str, catalog: Catalog) -> str:
    """sha256 of all that a result depends on: the request, the architecture's source and the toolchain."""
    described = catalog.get(asked.architecture).model_dump_json()
    toolchain = json.dumps(library_versions(), sort_keys=True)
    whole = "\n".join((digest, described, service_version(), toolchain))
    return hashlib.sha256(whole.encode()).hexdigest()
