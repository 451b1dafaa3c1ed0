"""A receiver of webhooks: an HTTP server that answers as it is told and keeps what it was sent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.jobs.service import TIMEOUT

REDIRECTS = (301, 302, 307, 308)


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """``answers``: statuses for the next requests, by path; 204 when none is left."""

    url: str
    received: list[Received] = field(default_factory=list)
    answers: dict[str, list[int]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def at(self, path: str, count: int) -> list[Received]:
        """The first ``count`` requests to a path, waited for."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self._found(path)) >= count, TIMEOUT), self.received
            return self._found(path)[:count]

    def _found(self, path: str) -> list[Received]:
        return [one for one in self.received if one.path == path]


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with receiver.changed:
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(self.path, headers, body))
                waiting = receiver.answers.get(self.path, [])
                status = waiting.pop(0) if waiting else 204
                receiver.changed.notify_all()
            self.send_response(status)
            if status in REDIRECTS:
                self.send_header("Location", f"{receiver.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
