"""The HTTP server: uvicorn, with bounds on what a connection may send before the application sees a request."""

import asyncio
import json
import resource
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.browsers import HEADERS, misdirected
from app.api.problems import MEDIA_TYPE, RequestTimeout, problem_document
from app.domain.errors import RecastError, Unavailable
from app.settings import Settings

KEEP_ALIVE = 75
MAX_HEAD = 32 * 1024
"""Bytes of a request's line and headers, and of what may stand between pieces of a body: chunk extensions, trailers."""
SEPARATORS = 4
"""Bytes of a header line beside its name and value."""
HEAD_SECONDS = 20.0
"""Seconds within which the head of a request must have arrived."""
LINGER_SECONDS = 1.0
"""How long a refused connection stays open, so that its client can read why (RFC 9112, section 9.6)."""
MOST_FILES = 65_536
SPARE_FILES = 128
"""Open files that are not for clients: the database, the store, libraries."""

log = structlog.get_logger("recast.server")


class HeadTooLarge(RecastError):
    code, status, title = "head_too_large", 431, "The head of the request is too large"
    hint = "Send shorter headers, and large things in the body."


class BadRequest(RecastError):
    code, status, title = "bad_request", 400, "This is not an HTTP request"
    hint = "Look at what stands between you and the service: the bytes that arrived are no HTTP/1.1."


class TooManyConnections(RecastError):
    code, status, title = "too_many_connections", 429, "One client holds too many connections"
    hint = "Close some, or use one connection for several requests."


@dataclass
class Connections:
    """Who is connected to this process, and how many may be."""

    most: int
    most_per_client: int
    held: Counter[str] = field(default_factory=Counter)

    def refusal(self, client: str) -> RecastError | None:
        """Why one more connection of ``client`` is not taken; None if it is."""
        if self.held.total() >= self.most:
            return Unavailable(f"This server holds {self.most} connections, which is all it can.", retry_after=5)
        if self.held[client] >= self.most_per_client:
            return TooManyConnections(f"You hold {self.most_per_client} connections.", retry_after=5)
        return None

    def release(self, client: str) -> None:
        self.held[client] -= 1
        if self.held[client] <= 0:
            del self.held[client]


def server_config(app: ASGIApp, settings: Settings, *, grace: int) -> uvicorn.Config:
    """How uvicorn serves the application; open requests get ``grace`` seconds when it stops."""
    connections = Connections(_connections_possible(), settings.max_connections_per_client)

    class Protocol(BoundedProtocol):
        held = connections

    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=grace,
        lifespan="on",
    )


def _connections_possible() -> int:
    """As many as the limit of open files admits, which is raised as far as this process may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(16, files - SPARE_FILES)


class BoundedProtocol(HttpToolsProtocol):
    """Refuses heads beyond MAX_HEAD bytes (431) or HEAD_SECONDS (408), and more connections than may be held.

    uvicorn bounds none of these. httptools hands a header on when it is complete, so bytes are counted as they come off
    the socket, since the parser last told of something that is bounded elsewhere.
    """

    held: Connections

    _client = "unknown"
    _pending = 0
    """Bytes received since the parser last told of a begin, an end or a piece of a body."""
    _head_size = 0
    _refused = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._client = self.client[0] if self.client else "unknown"
        refusal = self.held.refusal(self._client)
        self.held.held[self._client] += 1
        if refusal is not None:
            log.warning("connection_refused", client=self._client, code=refusal.code)
            self._refuse(refusal)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.held.release(self._client)
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._pending += len(data)
        if self._idle():
            self._expect_head()
        super().data_received(data)
        if self._pending > MAX_HEAD and not self._refused:
            self._refuse(HeadTooLarge(f"More than {MAX_HEAD} bytes came without an end of the headers."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._pending = self._head_size = 0
        self._expect_head()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + SEPARATORS)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._pending = self._head_size = 0
        self._head_arrived()
        if not self._refused:
            self._refuse_two_hosts()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = 0
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            self._refuse(BadRequest(msg))

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD and not self._refused:
            self._refuse(HeadTooLarge(f"The head has more than {MAX_HEAD} bytes."))

    def _refuse_two_hosts(self) -> None:
        """The application sees the path of the target alone. Several Host headers it refuses itself."""
        host = next((value for name, value in self.headers if name == b"host"), b"")
        refusal = misdirected(self.url, host.decode("latin-1"))
        if refusal is not None:
            self._refuse(refusal)

    def _expect_head(self) -> None:
        if self._deadline is None and not self._refused:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_late(self) -> None:
        self._deadline = None
        if not self._idle():
            self._expect_head()  # of a request sent ahead, while the one before it is answered
        elif self._pending == 0 and self._head_size == 0:
            self.transport.close()  # nobody asked anything
        else:
            self._refuse(RequestTimeout(f"The head of the request did not arrive within {HEAD_SECONDS:.0f} s."))

    def _refuse(self, error: RecastError) -> None:
        """Answer with the problem and close; where another answer is under way, close after that one."""
        self._refused = True
        self._head_arrived()
        if self.transport.is_closing():
            return
        if self._idle():
            self.transport.write(_answer(error))
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        elif self.cycle.more_body:
            self.transport.close()  # the rest of that request's body will not be understood
        else:
            self.cycle.keep_alive = False

    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete


def _answer(error: RecastError) -> bytes:
    problem = error.problem()
    request_id = f"req_{uuid4().hex}"
    body = problem_document(problem, instance="", request_id=request_id)
    headers: dict[str, Any] = {
        "content-type": MEDIA_TYPE,
        "content-length": len(body),
        "x-request-id": request_id,
        "connection": "close",
        **HEADERS,
    }
    if "retry_after" in problem.extra:
        headers["retry-after"] = json.dumps(problem.extra["retry_after"])
    head = b"".join(f"{name}: {value}\r\n".encode("ascii") for name, value in headers.items())
    return STATUS_LINE[problem.status] + head + b"\r\n" + body
