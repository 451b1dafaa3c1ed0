"""A resumable upload at work: what arrives becomes objects of the store, and those become a checkpoint.

A part is acknowledged once it is durable: its object is stored, then its row and the new offset are committed. A
connection that breaks off costs nothing of what had arrived.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from starlette.requests import ClientDisconnect, Request

from app.api.bodies import body_stream
from app.api.problems import RequestTimeout
from app.api.service import Service
from app.api.uploads import arriving, recognised
from app.database import checkpoints, uploads
from app.database.tables import Upload, UploadPart
from app.domain.checkpoint_format import HEAD
from app.domain.errors import PayloadTooLarge, RecastError
from app.jobs import queue

PART = 64 << 20
"""Bytes after which what has arrived becomes an object of its own."""
SMALL = 8 << 20
"""Bytes below which a part is stored anew with what follows it, once that is as large: so a file has few parts however
it comes, and each of its bytes is stored anew as often as the size of its part was doubled, 23 times at most."""

log = structlog.get_logger("recast.api")


class ChecksumMismatch(RecastError):
    code, status, title = "checksum_mismatch", 460, "The bytes received do not have the checksum sent with them"
    hint = "Nothing of this request was kept; send it again from the same offset."


@dataclass(frozen=True)
class Checksum:
    """Of all bytes of one request."""

    algorithm: str
    digest: bytes


class Incoming:
    """The bytes of one request, as far as they come and as many as are still to come.

    ``broken``: why they ended early; what came before counts.
    """

    def __init__(self, request: Request, wanted: int, checksum: Checksum | None) -> None:
        self.broken: Exception | None = None
        self.announced = int(request.headers.get("content-length", "0")[:18] or 0)
        self._chunks = body_stream(request)
        self._wanted = wanted
        self._checksum = checksum
        self._hasher = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
        self._next = b""

    async def segment(self) -> AsyncIterator[bytes]:
        """The next bytes, about PART of them."""
        given = 0
        while given < PART and await self.more():
            chunk, self._next = self._next, b""
            given += len(chunk)
            yield chunk

    async def more(self) -> bool:
        """Whether there is at least one more byte. Raises PayloadTooLarge."""
        while not self._next:
            try:
                chunk = await anext(self._chunks, None)
            except (ClientDisconnect, RequestTimeout) as error:
                self.broken, chunk = error, None
            if chunk is None:
                return False
            self._wanted -= len(chunk)
            if self._wanted < 0:
                raise PayloadTooLarge("The body goes beyond the length that the upload was begun with.")
            if self._hasher is not None:
                self._hasher.update(chunk)
            self._next = chunk
        return True

    def refuse_another_checksum(self) -> None:
        """Raises ChecksumMismatch once all has come."""
        if self._checksum and self._hasher and self._hasher.digest() != self._checksum.digest:
            raise ChecksumMismatch(f"The {self._checksum.algorithm} of the body differs.")


async def receive(service: Service, upload: Upload, request: Request, checksum: Checksum | None) -> int:
    """Keep what a request brings after the upload's offset; gives the new offset.

    With a checksum all or nothing is kept. Raises ChecksumMismatch, PayloadTooLarge, LeaseLost, what storing raises,
    and what a body that breaks off raises, after keeping what came.
    """
    incoming = Incoming(request, upload.length - upload.received, checksum)
    received = upload.received
    unrecorded: list[UploadPart] = []
    async with service.database.transaction() as session:
        parts = list(await uploads.parts(session, upload.id))
    while await incoming.more():
        renewed = _taken_in(parts, incoming.announced)
        parts = [await _store(service, upload, incoming, received, renewed)]
        received = parts[0].start + parts[0].bytes
        unrecorded += parts
        if checksum is None:
            await _record(service, upload, unrecorded)
            unrecorded = []
    if incoming.broken is not None:
        raise incoming.broken
    incoming.refuse_another_checksum()
    if unrecorded:
        await _record(service, upload, unrecorded)
    return received


def _taken_in(parts: Sequence[UploadPart], announced: int) -> list[UploadPart]:
    """The last parts that are stored anew with ``announced`` more bytes (0: unknown), each no larger than all after it.

    As a binary counter carries: parts of sizes that at least halve are left, so few of them.
    """
    taken: list[UploadPart] = []
    size = announced or SMALL
    for part in reversed(parts):
        if part.bytes >= SMALL or part.bytes > size:
            break
        taken.insert(0, part)
        size += part.bytes
    return taken


async def _store(
    service: Service, upload: Upload, incoming: Incoming, received: int, renewed: Sequence[UploadPart]
) -> UploadPart:
    """The next part, which takes ``renewed`` before it in."""
    chunks = _joined(service, renewed, incoming)
    if received == 0 and incoming.announced >= min(HEAD, upload.length):
        chunks = recognised(chunks)
    stored = await service.store.receive(service.uploads.watched(chunks), limit=upload.length)
    start = renewed[0].start if renewed else received
    return UploadPart(upload_id=upload.id, start=start, bytes=stored.bytes, sha256=stored.sha256)


async def _joined(service: Service, before: Sequence[UploadPart], incoming: Incoming) -> AsyncIterator[bytes]:
    for part in before:
        async for stored in service.store.stream(part.sha256):
            yield bytes(stored)
    async for chunk in incoming.segment():
        yield chunk


async def _record(service: Service, upload: Upload, arrived: list[UploadPart]) -> None:
    async with service.database.transaction() as session:
        await uploads.add_parts(session, upload, arrived, service.settings.uploads_kept)


async def finish(service: Service, id: str) -> None:
    """Make a checkpoint of an upload that has arrived, which goes on although the client leaves.

    Raises what is wrong with the file; the upload keeps it too.
    """
    await asyncio.shield(service.assembling.get(id) or _begin(service, id))


def resume(service: Service, upload: Upload) -> None:
    """Put an upload together whose process died over it, in the background."""
    if upload.received == upload.length and upload.ended_at is None and upload.id not in service.assembling:
        _begin(service, upload.id)


async def wait(service: Service, id: str, seconds: float) -> None:
    """Wait for an upload that this process puts together."""
    if (task := service.assembling.get(id)) is not None:
        await asyncio.wait([task], timeout=seconds)


def _begin(service: Service, id: str) -> "asyncio.Task[None]":
    task = asyncio.create_task(_assemble(service, id), name=f"assemble {id}")
    service.assembling[id] = task
    task.add_done_callback(partial(_ended, service, id))
    return task


def _ended(service: Service, id: str, task: "asyncio.Task[None]") -> None:
    service.assembling.pop(id, None)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("upload_not_assembled", upload=id, error=str(error).split("\n", 1)[0])


async def _assemble(service: Service, id: str) -> None:
    async with service.database.transaction() as session:
        upload = await uploads.find(session, id)
        parts = await uploads.parts(session, id)
    if upload.ended_at is not None:
        return

    async def whole() -> AsyncIterator[bytes]:
        for part in parts:
            async for chunk in service.store.stream(part.sha256):
                yield bytes(chunk)

    kept = service.settings.uploads_kept
    expected = upload.expected_sha256
    try:
        async with arriving(service, whole(), limit=upload.length, expected_sha256=expected) as stored:
            await queue.register_checkpoint(
                service.database, stored, upload.filename, name=upload.name, labels=upload.labels
            )
    except RecastError as error:
        if error.status < 500:
            async with service.database.transaction() as session:
                await uploads.end(session, id, kept, problem=error.problem())
        raise
    async with service.database.transaction() as session:
        await checkpoints.hold(session, stored.sha256)
        await uploads.end(session, id, kept, checkpoint_sha256=stored.sha256)
