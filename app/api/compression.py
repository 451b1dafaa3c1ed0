"""Smaller answers for clients that take gzip: JSON and pages. Files are dense, large, and served in ranges."""

from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LEAST = 1_000
"""Bytes below which it is not worth a processor's time."""
LEVEL = 5
AS_THEY_ARE = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    "application/octet-stream",
    "application/onnx",
    "text/plain",
    "text/x-python",
)
"""A log is text too, but is sent while it grows."""


class Compression(GZipMiddleware):
    """What is told of a whole answer is made true of the compressed one, as RFC 9110 and RFC 9530 demand."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, LEAST, LEVEL, exclude_content_types=AS_THEY_ARE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def truly(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-encoding") == "gzip":
                    for name in ("Repr-Digest", "Accept-Ranges"):
                        del headers[name]
                    tag = headers.get("etag")
                    if tag is not None and not tag.startswith("W/"):
                        headers["ETag"] = f"W/{tag}"
            await send(message)

        await super().__call__(scope, receive, truly)
