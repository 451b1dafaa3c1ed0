"""Taking files in: from a raw body or a form's part straight to the object store."""

from collections.abc import AsyncIterator
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


async def receive_upload(request: Request, service: Service) -> tuple[StoredObject, str | None]:
    """Store the one file of the request, a form's ``file`` or the whole body; gives its name too, if it has one."""
    limit = service.settings.max_upload_bytes
    expected = told_sha256(request.headers)
    refuse_announced_size(request, limit + (FORM_OVERHEAD if is_form(request) else 0))
    async with place(request, service):
        if is_form(request):
            return await _receive_form(request, service, limit, expected)
        chunks = service.uploads.watched(recognised(body_stream(request)))
        stored = await service.store.receive(chunks, limit=limit, expected_sha256=expected)
        return stored, _name_in_header(request)


async def _receive_form(
    request: Request, service: Service, limit: int, expected: str | None
) -> tuple[StoredObject, str | None]:
    received: tuple[StoredObject, str | None] | None = None
    async for part in form_reader(request).parts():
        if part.name != "file":
            raise InvalidRequest(f"Unknown form field {part.name[:100]!r}.", hint="The form has one field: file.")
        if received is not None:
            raise InvalidRequest("The form has more than one field called file.")
        chunks = service.uploads.watched(recognised(part.chunks))
        stored = await service.store.receive(chunks, limit=limit, expected_sha256=expected)
        received = (stored, part.filename)
    if received is None:
        raise InvalidRequest("The form has no field called file.", hint="curl -F file=@weights.pth ...")
    return received


def _name_in_header(request: Request) -> str | None:
    _, parameters = parse_options_header(request.headers.get("content-disposition"))
    name = parameters.get(b"filename")
    return None if name is None else safe_filename(name.decode("utf-8", "replace"))
