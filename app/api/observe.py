"""The outermost middleware: a request id on every response, one log line and metrics per request, no bare 500."""

import re
import time
from uuid import uuid4

import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import MEDIA_TYPE, Internal, problem_document

ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""Request ids that are taken over from the client: nothing that could break a log line or a header."""
CLIENT_CLOSED = 499
"""What the log says of a request whose client left before an answer began (nginx's convention)."""

REQUESTS = Counter("recast_http_requests_total", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram(
    "recast_http_request_seconds",
    "Time from the request's headers to the end of the response",
    ["method", "route"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600),
)
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""What machines ask every few seconds; logged at level debug while nothing is wrong."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = structlog.get_logger("recast.access")


class Observe:
    """Gives each request its id and tells how it ended; turns an unexpected exception into a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = Headers(scope=scope).get("x-request-id", "")
        request_id = told if ACCEPTED_ID.fullmatch(told) else f"req_{uuid4().hex}"
        scope["recast_request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status = CLIENT_CLOSED
        sent_bytes = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            elif message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            log.exception("unexpected_error", path=scope["path"])
            if status != CLIENT_CLOSED:
                raise
            await send_internal(error, scope["path"], request_id, send_with_id)
        finally:
            self.tell(scope, status, sent_bytes, time.perf_counter() - started)
            structlog.contextvars.clear_contextvars()

    @staticmethod
    def tell(scope: Scope, status: int, sent_bytes: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        REQUESTS.labels(method, route, str(status)).inc()
        SECONDS.labels(method, route).observe(seconds)
        tell = log.debug if scope["path"] in PROBES and (status < 500 or scope["path"] == "/readyz") else log.info
        tell(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            seconds=round(seconds, 6),
            sent_bytes=sent_bytes,
            client=(scope.get("client") or ("unknown", 0))[0],
        )


async def send_internal(error: Exception, path: str, request_id: str, send: Send) -> None:
    """Answer 500 without a word of the exception's text, which may hold what the client must not see."""
    problem = Internal(f"An unexpected {type(error).__name__} was logged.").problem()
    body = problem_document(problem, instance=path, request_id=request_id)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
