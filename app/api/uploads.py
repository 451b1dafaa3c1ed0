"""Taking files in, however they come: from a raw body, a form's part or the parts of a resumable upload to the store.

What goes on beside each other, and what waits for what:

1. While bytes arrive, a thread hashes and writes those before them, and another flushes what was written.
2. With the last byte the sha256 is known. From then on the object can be read (``ObjectStore.arriving``), the rows that
   name it are committed, a worker takes the conversion and its process reads the file, all while the rest is flushed.
3. Nothing is answered (201, 202, 204, nor the end of a conversion that a client waits for) before file, directory entry
   and rows are durable. A worker makes sure of its checkpoint itself before it records an end (``ObjectStore.settle``).

Whatever dies in between: rows without bytes that have their sha256 end as "upload it again", bytes without rows are
collected, and neither was acknowledged.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.api.bodies import body_stream, refuse_announced_size
from app.api.digests import told_sha256
from app.api.filenames import safe_filename
from app.api.multipart import MultipartReader, Part
from app.api.service import Service
from app.api.upload_places import place
from app.domain.checkpoint_format import HEAD, recognise_head
from app.domain.errors import InvalidRequest
from app.storage.objects import StoredObject

FORM_OVERHEAD = 4 << 20
"""Bytes that a form may have beside its file."""


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/")


def form_reader(request: Request) -> MultipartReader:
    return MultipartReader(body_stream(request), request.headers.get("content-type", ""))


async def recognised(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, once the first of them look like a checkpoint: a foreign file is refused before it is stored.

    Raises EmptyFile, UnsupportedFormat.
    """
    head = bytearray()
    async for chunk in chunks:
        head += chunk
        if len(head) >= HEAD:
            break
    recognise_head(bytes(head[:HEAD]))
    yield bytes(head)
    async for chunk in chunks:
        yield chunk


async def chosen(part: Part) -> Part | None:
    """The same part; None for what a form sends in place of a file that was not chosen: no name and no bytes."""
    if part.filename is not None:
        return part
    first = await anext(part.chunks, None)
    if first is None:
        return None

    async def chunks() -> AsyncIterator[bytes]:
        yield first
        async for chunk in part.chunks:
            yield chunk

    return replace(part, chunks=chunks())


def arriving(
    service: Service, chunks: AsyncIterator[bytes], *, limit: int, expected_sha256: str | None
) -> AbstractAsyncContextManager[StoredObject]:
    """A checkpoint on its way into the store; as ObjectStore.arriving, and refused before where it is foreign."""
    watched = service.uploads.watched(recognised(chunks))
    return service.store.arriving(watched, limit=limit, expected_sha256=expected_sha256)


@asynccontextmanager
async def arriving_upload(request: Request, service: Service) -> AsyncIterator[tuple[StoredObject, str | None]]:
    """The one file of the request, a form's ``file`` or the whole body, and its name, if it has one; durable after the
    block."""
    limit = service.settings.max_upload_bytes
    expected = told_sha256(request.headers)
    refuse_announced_size(request, limit + (FORM_OVERHEAD if is_form(request) else 0))
    async with place(request, service), AsyncExitStack() as kept:
        if is_form(request):
            yield await _receive_form(request, service, kept, limit, expected)
        else:
            upload = arriving(service, body_stream(request), limit=limit, expected_sha256=expected)
            yield await kept.enter_async_context(upload), _name_in_header(request)


async def _receive_form(
    request: Request, service: Service, kept: AsyncExitStack, limit: int, expected: str | None
) -> tuple[StoredObject, str | None]:
    received: tuple[StoredObject, str | None] | None = None
    async for part in form_reader(request).parts():
        if part.name != "file":
            raise InvalidRequest(f"Unknown form field {part.name[:100]!r}.", hint="The form has one field: file.")
        if received is not None:
            raise InvalidRequest("The form has more than one field called file.")
        upload = arriving(service, part.chunks, limit=limit, expected_sha256=expected)
        received = (await kept.enter_async_context(upload), part.filename)
    if received is None:
        raise InvalidRequest("The form has no field called file.", hint="curl -F file=@weights.pth ...")
    return received


def _name_in_header(request: Request) -> str | None:
    _, parameters = parse_options_header(request.headers.get("content-disposition"))
    name = parameters.get(b"filename")
    return None if name is None else safe_filename(name.decode("utf-8", "replace"))
