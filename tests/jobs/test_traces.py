"""A trace reaches from the request to the stages of its conversion, over the queue; a collector receives it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server
from typing import Any
from uuid import uuid4

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.telemetry import carried_on
from tests.api.server import weights
from tests.jobs.service import PROJECT, TIMEOUT, Client, StartWorker

pytestmark = pytest.mark.anyio


class Collector:
    """Takes traces as OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        taken = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    names = {one.key: one.value.string_value for one in of_resource.resource.attributes}
                    for scope in of_resource.scope_spans:
                        taken.extend((names["service.name"], span) for span in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    taking = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", taking.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield taking
    taking.server.shutdown()
    taking.server.server_close()


@pytest.fixture
def api(collector: Collector, database_url: str, tmp_path: Path) -> Iterator[str]:
    with closing(create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "api", "--port", str(port), "--data-dir", str(tmp_path)]
    process = subprocess.Popen(command, cwd=PROJECT, env={**os.environ, "RECAST_DATABASE_URL": database_url})
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            httpx.get(f"{url}/healthz")
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield url
    process.terminate()
    process.wait(TIMEOUT)


async def test_a_request_and_the_stages_of_its_conversion_are_one_trace(
    collector: Collector, api: str, client: Client, start_worker: StartWorker
) -> None:
    worker = start_worker()
    while not await client.scalar("select count(*) from catalogs"):
        time.sleep(0.1)
    trace = uuid4().hex
    with httpx.Client(base_url=api, timeout=TIMEOUT) as http:
        answer = http.post(
            "/v1/conversions",
            headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"},
            data={"architecture": "test/net", "target": "onnx"},
            files={"file": ("weights.pth", weights(b"traced"))},
        )
        assert answer.status_code == 202, answer.text
        await client.ended(answer.json()["id"])
    worker.terminate()
    worker.wait(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while not any(part == "recast-api" and span.trace_id.hex() == trace for part, span in collector.spans):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ours = {span.name: (part, span) for part, span in collector.spans if span.trace_id.hex() == trace}
    (request,) = [span for part, span in ours.values() if part == "recast-api"]
    part, conversion = ours["convert"]
    assert part == "recast-worker"
    assert conversion.parent_span_id == request.span_id
    told = {one.key: one.value.string_value for one in conversion.attributes}
    assert (told["recast.conversion"], told["recast.state"]) == (answer.json()["id"], "succeeded")
    for stage in ("export", "publish"):
        assert ours[stage][1].parent_span_id == conversion.span_id
    assert not any(span.name in ("/healthz", "GET /healthz") for _, span in collector.spans)


def test_an_entry_carries_nothing_where_nothing_is_traced() -> None:
    assert carried_on() == {}
