"""From a request's body, JSON or form, to a queued conversion."""

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Header
from starlette.requests import Request

from app.api.bodies import json_object, refuse_announced_size
from app.api.conversion_request import (
    FILE_FIELDS,
    TEXT_FIELDS,
    ConversionRequest,
    asks_for_several,
    conversion_request,
    form_members,
    refuse_unknown_members,
    single_requests,
)
from app.api.digests import SHA256_HEX, told_sha256
from app.api.multipart import Part
from app.api.problems import request_id
from app.api.service import Service
from app.api.upload_places import place
from app.api.uploads import FORM_OVERHEAD, arriving, chosen, form_reader, is_form
from app.database import checkpoints, projects
from app.database.conversions import NewConversion, SourceReference
from app.database.groups import NewGroup
from app.database.idempotency import Idempotency
from app.database.projects import owner_of_new
from app.database.tables import Group
from app.domain.catalog import Catalog
from app.domain.errors import InsufficientStorage, InvalidRequest, RecastError, Unavailable, UnknownCheckpoint
from app.domain.publication import Publication
from app.domain.versions import library_versions, service_version
from app.jobs import queue
from app.jobs.queue import Submitted, Uploaded
from app.remotes.grants import checked_uri
from app.storage.objects import StoredObject

MAX_PROBES = 256 << 20
"""Bytes of a client's own probes (npz)."""
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="The same key and request give one conversion, or one group",
        json_schema_extra={"pattern": f"^{IDEMPOTENCY_KEY.pattern}$"},
    ),
]
"""The header as the document describes it; it is read and refused by ``submit_request``."""


@dataclass(frozen=True)
class Received:
    """A body that was read: what it asks for, and the files that came with it or that it names."""

    members: Mapping[str, Any]
    checkpoint_sha256: str
    """Empty where no file came, or where it is to be fetched from ``source``."""
    filename: str | None = None
    probes_sha256: str | None = None
    source: SourceReference | None = None
    file: Uploaded | None = None
    """The file that came with it, not known as a checkpoint yet."""


async def submit_request(request: Request, service: Service) -> Submitted | Group:
    """Read the body, check it, and queue the conversion or find the one it stands for; several make a group.

    Raises the errors of reading and checking, UnknownCheckpoint, IdempotencyConflict, QueueFull.
    """
    key = _idempotency_key(request)
    catalog = await service.catalog.current()
    if not is_form(request):
        return await _submit(await _read_json(request), service, catalog, key, request_id(request))
    async with AsyncExitStack() as kept:
        async with place(request, service):
            received = await _read_form(request, service, catalog, kept)
        try:
            return await _submit(received, service, catalog, key, request_id(request))
        except RecastError as error:
            if received.file is not None:
                await _keep(received.file, service, error)
            raise


async def _submit(
    received: Received, service: Service, catalog: Catalog, key: str | None, request_id: str
) -> Submitted | Group:
    """Queue what was asked for, and make the file that came with it known in the same transaction."""
    orders = [await _ordered(one, service, catalog, request_id) for one in _single(received)]
    reuse = not orders[0].force
    database, file = service.database, received.file
    if not asks_for_several(received.members):
        (order,) = orders
        idempotency = Idempotency(key, order.digest) if key else None
        return await queue.submit(database, order.new, file=file, key=idempotency, reuse_finished=reuse)
    group = NewGroup(tuple(order.new for order in orders), orders[0].new.name, orders[0].new.labels)
    whole = hashlib.sha256("\n".join(order.digest for order in orders).encode("ascii")).hexdigest()
    idempotency = Idempotency(key, whole) if key else None
    return await queue.submit_group(database, group, file=file, key=idempotency, reuse_finished=reuse)


@dataclass(frozen=True)
class _Order:
    """One conversion that was asked for. ``digest``: of all that the client said of it."""

    new: NewConversion
    digest: str
    force: bool


def _single(received: Received) -> list[Received]:
    """A body as the bodies of the single conversions that it asks for. Raises InvalidRequest."""
    uploaded = received.checkpoint_sha256
    if uploaded and "checkpoints" in received.members:
        raise InvalidRequest("Send either file or checkpoints, not both.")
    return [
        replace(received, members=members) if uploaded else _referring(members, received.probes_sha256)
        for members in single_requests(received.members)
    ]


async def _ordered(received: Received, service: Service, catalog: Catalog, request_id: str) -> _Order:
    """One conversion, checked. Raises the errors of checking."""
    longest = service.settings.job_timeout
    asked = await asyncio.to_thread(conversion_request, received.members, catalog, service.egress, longest=longest)
    received = await _known_already(received, service)
    await refuse_places(service, asked.publish)
    source = received.source
    asked = replace(asked, options=asked.options.for_file(received.filename))
    weights = received.checkpoint_sha256 or (source and (source.sha256 or source.uri)) or ""
    digest = asked.digest(weights, received.probes_sha256)
    new = NewConversion(
        checkpoint_sha256=received.checkpoint_sha256,
        architecture=asked.architecture,
        options=asked.options,
        architecture_options=asked.architecture_options,
        recipe=asked.recipe,
        checkpoint_filename=received.filename,
        dedup_key=None if source and source.sha256 is None else _dedup_key(asked, digest, catalog),
        source=source,
        probes_sha256=received.probes_sha256,
        accept=asked.accept,
        name=asked.name,
        labels=asked.labels,
        priority=asked.priority,
        timeout=asked.timeout,
        backlog=service.backlog,
        webhook=asked.webhook,
        publish=asked.publish,
        request_id=request_id,
    )
    return _Order(new, asked.idempotency_digest(digest), asked.force)


async def _read_json(request: Request) -> Received:
    if not request.headers.get("content-type", "application/json").lower().startswith("application/json"):
        raise InvalidRequest(
            "The body must be application/json or multipart/form-data.",
            hint="curl -F file=@weights.pth -F architecture=... -F target=onnx",
        )
    members = await json_object(request)
    refuse_unknown_members(set(members), TEXT_FIELDS)
    return Received(members, "")


def _referring(members: Mapping[str, Any], probes_sha256: str | None) -> Received:
    """A body that names its file: by its sha256, or by where it is. Raises InvalidRequest."""
    if isinstance(members.get("checkpoint"), dict):
        return Received(members, "", probes_sha256=probes_sha256, source=_source(members["checkpoint"]))
    return Received(members, _named_checkpoint(members), probes_sha256=probes_sha256)


async def refuse_places(service: Service, places: Sequence[Publication]) -> None:
    """Raises SourceNotAllowed for a place that the project may not publish to."""
    if places:
        async with service.database.transaction() as session:
            owners = await projects.known_as(session, owner_of_new(session))
        for place in places:
            service.grants.find(place.uri, owners, "publish")


def _source(told: Mapping[str, Any]) -> SourceReference:
    """The file that a request names by its URI. Raises InvalidRequest."""
    refuse_unknown_members(set(told), frozenset({"uri", "sha256"}))
    uri, sha256 = told.get("uri"), told.get("sha256")
    if not isinstance(uri, str):
        raise InvalidRequest("checkpoint.uri must be a string.")
    if sha256 is not None and not (isinstance(sha256, str) and SHA256_HEX.fullmatch(sha256)):
        raise InvalidRequest("checkpoint.sha256 must be 64 hexadecimal digits.")
    return SourceReference(checked_uri(uri), sha256 and sha256.lower())


async def _known_already(received: Received, service: Service) -> Received:
    """The body, with the checkpoint itself in the place of a reference to one that the project has.

    Raises SourceNotAllowed.
    """
    if received.source is None:
        return received if received.file is not None else await _named(received, service)
    async with service.database.transaction() as session:
        owners = await projects.known_as(session, owner_of_new(session))
        service.grants.find(received.source.uri, owners, "import")
        if received.source.sha256 is not None:
            with suppress(UnknownCheckpoint):
                known = await checkpoints.owner(session, received.source.sha256)
                return replace(received, checkpoint_sha256=known.sha256, filename=known.filename, source=None)
    return received


async def _named(received: Received, service: Service) -> Received:
    """With the name under which its checkpoint was uploaded; whether there is one shows when it is queued.

    One that another request brings just now is durable first; where the store is away, its conversions wait.
    """
    try:
        async with service.database.transaction() as session:
            known = await checkpoints.owner(session, received.checkpoint_sha256)
    except UnknownCheckpoint:
        return received
    with suppress(Unavailable, InsufficientStorage):
        await service.store.settle(known.sha256)
    return replace(received, filename=known.filename)


async def _read_form(request: Request, service: Service, catalog: Catalog, kept: AsyncExitStack) -> Received:
    """The form as it arrives; its files are durable when ``kept`` has ended. A file that came before something wrong is
    kept, and the error names it."""
    limit = service.settings.max_upload_bytes
    refuse_announced_size(request, limit + MAX_PROBES + FORM_OVERHEAD)
    expected = told_sha256(request.headers)
    fields: dict[str, str] = {}
    files: dict[str, Uploaded] = {}
    try:
        async for sent in form_reader(request).parts():
            refuse_unknown_members({sent.name}, TEXT_FIELDS | FILE_FIELDS)
            if sent.name in fields or sent.name in files:
                raise InvalidRequest(f"The form has more than one field called {sent.name}.")
            if sent.name in TEXT_FIELDS:
                fields[sent.name] = await sent.text()
            elif (part := await chosen(sent)) is not None:
                await _refuse_early(request, service, fields, catalog)
                stored = await kept.enter_async_context(_arriving_part(part, service, limit, expected))
                files[part.name] = Uploaded(stored, part.filename)
        return _received_form(fields, files)
    except RecastError as error:
        if "file" in files:
            await _keep(files["file"], service, error)
        raise


def _received_form(fields: Mapping[str, str], files: Mapping[str, Uploaded]) -> Received:
    members = form_members(fields)
    probes = files["probes"].stored.sha256 if "probes" in files else None
    if "file" not in files:
        return Received(members, "", probes_sha256=probes)
    if "checkpoint" in members:
        raise InvalidRequest("Send either file or checkpoint, not both.")
    file = files["file"]
    return Received(members, file.stored.sha256, file.filename, probes, file=file)


async def _keep(file: Uploaded, service: Service, error: RecastError) -> None:
    """Make the file of a request known that was refused for ``error``, which then names it."""
    await queue.register_checkpoint(service.database, file.stored, file.filename, inspect=False)
    error.extra["checkpoint"] = file.stored.sha256


def _arriving_part(
    part: Part, service: Service, limit: int, expected: str | None
) -> AbstractAsyncContextManager[StoredObject]:
    if part.name == "probes":
        return service.store.arriving(part.chunks, limit=MAX_PROBES)
    return arriving(service, part.chunks, limit=limit, expected_sha256=expected)


async def _refuse_early(request: Request, service: Service, fields: Mapping[str, str], catalog: Catalog) -> None:
    """Where all that can be checked came before the file, a wrong request need not wait for the file.

    Nor need one that a full queue will not take; with a key it may repeat an earlier one, which needs no place.
    """
    if _idempotency_key(request) is None:
        async with service.database.transaction() as session:
            await service.backlog.refuse_when_full(session, owner_of_new(session))
    members = form_members(fields)
    if "architecture" in members and "target" in members:
        longest = service.settings.job_timeout
        await asyncio.to_thread(conversion_request, members, catalog, service.egress, longest=longest)
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
    named = asked.architecture if asked.recipe is None else f"{asked.architecture}@{asked.recipe}"
    described = catalog.get(named).model_dump_json()
    toolchain = json.dumps(library_versions(), sort_keys=True)
    whole = "\n".join((digest, described, service_version(), toolchain))
    return hashlib.sha256(whole.encode()).hexdigest()
