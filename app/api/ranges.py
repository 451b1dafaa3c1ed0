"""Answers with byte ranges (RFC 9110, section 14) for content of known length that can be streamed from any offset."""

import base64
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.api.filenames import content_disposition
from app.domain.errors import RecastError
from app.storage.objects import Chunk

ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
LONGEST_NUMBER = 19
"""Digits of 2⁶³; a longer offset is nonsense and costs time to parse."""


class RangeNotSatisfiable(RecastError):
    code, status, title = "range_not_satisfiable", 416, "No byte of the requested range exists"
    hint = "Content-Range says how long the content is."


@dataclass(frozen=True)
class Content:
    """Something to send: ``stream(start, end)`` yields bytes [start, end)."""

    filename: str
    media_type: str
    size: int
    etag: str
    """Strong entity tag, with its quotes."""
    stream: Callable[[int, int], AsyncIterator[Chunk]]
    sha256: str | None = None
    disposition: Literal["attachment", "inline"] = "attachment"


def requested_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open range that ``header`` asks for, or None when all is to be sent.

    What is not one well-formed byte range is ignored, as section 14.2 permits: other units, nonsense such as 5-1, and
    lists of ranges. Raises RangeNotSatisfiable where the range is well-formed and lies beyond the end.
    """
    match = ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if match is None or any(len(part) > LONGEST_NUMBER for part in match.groups()) or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable(f"The content has {size} bytes; asked for {header}.", content_range=f"bytes */{size}")
    return start, end


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names ``etag`` (weak comparison)."""
    if header is None:
        return False
    return header.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in header.split(","))


def respond(request: Request, content: Content, extra_headers: dict[str, str] | None = None) -> Response:
    """200, 206 or 304 for ``content``, by the request's If-None-Match, Range and If-Range."""
    headers = {
        "ETag": content.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=0, must-revalidate",
        "X-Content-Type-Options": "nosniff",
        **(extra_headers or {}),
    }
    if matches(request.headers.get("if-none-match"), content.etag):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = content_disposition(content.filename, content.disposition)
    if content.sha256 is not None:
        digest = base64.b64encode(bytes.fromhex(content.sha256)).decode("ascii")
        headers["Repr-Digest"] = f"sha-256=:{digest}:"
        headers["X-Content-SHA256"] = content.sha256
    if_range = request.headers.get("if-range")
    wanted = None
    if if_range is None or if_range.strip() == content.etag:
        wanted = requested_range(request.headers.get("range"), content.size)
    start, end = wanted or (0, content.size)
    headers["Content-Length"] = str(end - start)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size}"
    status = 200 if wanted is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=content.media_type)
    return StreamingResponse(
        content.stream(start, end), status_code=status, headers=headers, media_type=content.media_type
    )
