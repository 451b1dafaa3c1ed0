"""`recast convert --server`: the same order, carried out by a service over HTTP."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from app.cli.conversion_order import Order
from app.cli.failure import tell
from app.cli.present import exit_status, show_remote
from app.domain.errors import Problem, RecastError, Unavailable
from app.domain.report import Verdict

BLOCK = 1 << 20
FINAL = ("succeeded", "failed", "canceled", "timed_out")
LONGEST_POLL = 5.0
PROBLEM_MEMBERS = ("code", "title", "status", "detail", "stage", "hint")
REQUEST_MEMBERS = ("type", "instance", "request_id", "conversion", "location")


class Refused(RecastError):
    """A problem document that the service answered with."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self._problem = problem

    def problem(self) -> Problem:
        return self._problem


def convert_remotely(order: Order, server: str) -> int:
    """Upload, wait, download; gives the exit status. Raises Refused, Unavailable."""
    try:
        with service_client(server, httpx.Timeout(60, read=660)) as client, _bars() as bars:
            conversion = _finished(client, _submit(client, order, bars))
            delivered = conversion["state"] == "succeeded" or (order.unverified and conversion["artifact"] is not None)
            if delivered:
                _download_results(client, conversion, order, bars)
            elif order.report is not None and conversion["links"]["report"] is not None:
                _download_report(client, conversion, order.report, bars)
    except httpx.TransportError as error:
        raise Unavailable(f"{server} does not answer: {error}") from None
    if conversion["verdict"] is not None:
        show_remote(conversion, order.output if delivered else None)
    if conversion["problem"] is not None:
        tell(_problem(conversion["problem"]))
        return 1
    return exit_status(Verdict(conversion["verdict"]))


def service_client(server: str, timeout: httpx.Timeout) -> httpx.Client:
    """A client of the service, with the key of the environment's RECAST_API_KEY where one is set."""
    key = os.environ.get("RECAST_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=server, timeout=timeout, headers=headers)


def _submit(client: httpx.Client, order: Order, bars: Progress) -> dict[str, Any]:
    with ExitStack() as files:
        weights = files.enter_context(order.weights.open("rb"))
        probes = None if order.probes is None else files.enter_context(order.probes.open("rb"))
        form = _Form(order, weights, probes)
        task = bars.add_task(f"upload {order.weights.name}", total=form.size)

        def content() -> Iterator[bytes]:
            for block in form.blocks():
                yield block
                bars.advance(task, len(block))

        headers = {"Content-Type": form.content_type, "Content-Length": str(form.size)}
        return answered(client.post("/v1/conversions", content=content(), headers=headers))


class _Form:
    """multipart/form-data (RFC 7578) of known length, read from disk while it is sent."""

    def __init__(self, order: Order, weights: IO[bytes], probes: IO[bytes] | None) -> None:
        self._boundary = uuid4().hex
        fields = {
            "architecture": order.architecture,
            "target": order.options.target,
            "options": json.dumps(order.given_options),
            "architecture_options": json.dumps(order.architecture_options),
            "accept": Verdict.inconclusive.value,  # told by the exit status, as without a server
        }
        self._pieces: list[bytes | IO[bytes]] = [
            self._head(f'name="{name}"') + value.encode() + b"\r\n" for name, value in fields.items()
        ]
        for name, file in (("probes", probes), ("file", weights)):
            if file is not None:
                filename = Path(file.name).name.replace("\\", "_").replace('"', "_")
                self._pieces += [self._head(f'name="{name}"; filename="{filename}"'), file, b"\r\n"]
        self._pieces.append(f"--{self._boundary}--\r\n".encode())
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        self.size = sum(
            len(piece) if isinstance(piece, bytes) else Path(piece.name).stat().st_size for piece in self._pieces
        )

    def blocks(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                while block := piece.read(BLOCK):
                    yield block

    def _head(self, parameters: str) -> bytes:
        return f"--{self._boundary}\r\nContent-Disposition: form-data; {parameters}\r\n\r\n".encode()


def _finished(client: httpx.Client, conversion: dict[str, Any]) -> dict[str, Any]:
    """Ask until it has finished; the pauses grow with the time it takes."""
    started = time.monotonic()
    while conversion["state"] not in FINAL:
        time.sleep(min(LONGEST_POLL, 0.05 + (time.monotonic() - started) / 10))
        conversion = answered(client.get(conversion["links"]["self"]))
    return conversion


def _download_results(client: httpx.Client, conversion: dict[str, Any], order: Order, bars: Progress) -> None:
    links = conversion["links"]
    unverified = {"unverified": "true"} if order.unverified else {}
    _download(client, links["artifact"], order.output, bars, parameters=unverified)
    if links["artifact_data"] is not None:
        data = order.output.with_name(conversion["artifact_data"]["filename"])
        _download(client, links["self"] + "/artifact", data, bars, parameters={**unverified, "part": "data"})
    if order.bundle is not None:
        _download(client, links["bundle"], order.bundle, bars, parameters=unverified)
    if order.report is not None:
        _download_report(client, conversion, order.report, bars)


def _download_report(client: httpx.Client, conversion: dict[str, Any], path: Path, bars: Progress) -> None:
    page = path.suffix.lower() in (".html", ".htm")
    accept = "text/html" if page else "application/json"
    _download(client, conversion["links"]["report"], path, bars, parameters={}, accept=accept)


def _download(
    client: httpx.Client, url: str, path: Path, bars: Progress, *, parameters: dict[str, str], accept: str = "*/*"
) -> None:
    """Beside its place first, so that a broken transfer never looks like a file."""
    arriving = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with client.stream("GET", url, params=parameters, headers={"Accept": accept}) as answer:
            if answer.is_error:
                answer.read()
                answered(answer)
            task = bars.add_task(f"download {path.name}", total=int(answer.headers["content-length"]))
            with arriving.open("wb") as file:
                for block in answer.iter_raw(BLOCK):
                    file.write(block)
                    bars.advance(task, len(block))
        arriving.rename(path)
    finally:
        arriving.unlink(missing_ok=True)


def answered(answer: httpx.Response) -> dict[str, Any]:
    """The body of a good answer. Raises Refused for a problem document, Unavailable for anything else."""
    kind = answer.headers.get("content-type", "")
    if answer.is_error and kind.startswith("application/problem+json"):
        raise Refused(_problem(answer.json()))
    if answer.is_error or not kind.startswith("application/json"):
        raise Unavailable(f"{answer.url} answered {answer.status_code} {kind}: this is not a Recast service.")
    body: dict[str, Any] = answer.json()
    return body


def _problem(document: dict[str, Any]) -> Problem:
    told = {name: document[name] for name in PROBLEM_MEMBERS if name in document}
    extra = {k: v for k, v in document.items() if k not in PROBLEM_MEMBERS and k not in REQUEST_MEMBERS}
    return Problem(**told, extra=extra)


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
