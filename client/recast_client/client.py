"""The clients: they drive flows over httpx2, with patience for what passes."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar
from uuid import uuid4

import httpx2

from recast_client import flows
from recast_client.bar import Bar
from recast_client.errors import RecastError, Unreachable
from recast_client.flows import ACCEPTED, Call, Download, Flow, Pause, Progress, Step
from recast_client.models import Conversion, Event

ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 20.0
"""Seconds; each further pause is up to twice as long, drawn at random so that many clients do not come back at once."""
PASSING = frozenset({429, 460, 502, 503, 504})
"""Statuses after which the same request may succeed; 460: bytes changed on their way (tus)."""
TIMEOUT = httpx2.Timeout(30, read=120, write=120)
BLOCK = 1 << 20
Result = TypeVar("Result")


class _Common:
    """What both clients know: the address, the key and how to read an answer."""

    def __init__(self, url: str, key: str | None = None, *, attempts: int = ATTEMPTS) -> None:
        self._attempts = attempts
        self._settings: dict[str, Any] = {
            "base_url": url,
            "timeout": TIMEOUT,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
        }

    def _pause(self, attempt: int, answer: httpx2.Response | None) -> float:
        """Seconds before the next attempt: what the service asks for, at least a growing random pause."""
        drawn: float = random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
        asked = answer.headers.get("retry-after", "") if answer is not None else ""
        return max(drawn, min(float(asked), LONGEST_PAUSE)) if asked.isdigit() else drawn


def _arguments(call: Call, files: ExitStack) -> dict[str, Any]:
    """A call as httpx2 takes it, its file opened anew for each attempt."""
    sent: dict[str, Any] = {"params": call.parameters, "headers": call.headers}
    if call.json is not None:
        sent["json"] = call.json
    if call.form is not None:
        sent["data"] = dict(call.form)
    for name, path in call.uploads.items():
        file = files.enter_context(path.open("rb"))
        watched = _Watched(file, call.progress) if call.progress and name == "file" else file
        sent.setdefault("files", {})[name] = (path.name, watched)
    if call.part is not None:
        sent["content"] = call.part.read()
    return sent


def _converting(
    weights: str | Path, accept: tuple[str, ...], request: dict[str, Any], *, wait: bool, bar: bool
) -> Flow[Conversion]:
    shown = Bar() if bar else None
    if shown is not None:
        request.setdefault("progress", shown.sent)
    submitting = flows.submit(weights, accept=accept, **request)
    return flows.convert(accept, submitting, shown.watched if shown else None) if wait else submitting


class _Watched:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self._file, self._progress = file, progress
        self._total = Path(file.name).stat().st_size

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._progress(self._file.tell(), self._total)
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()


def _body(answer: httpx2.Response, *, text: bool = False) -> Any:
    """The JSON of a good answer, or its text. Raises RecastError for a problem document, Unreachable for others."""
    kind = answer.headers.get("content-type", "")
    if kind.startswith("application/problem+json"):
        document = answer.json()
        # A conversion that failed while the request waited is answered as its problem; it is the caller's to judge.
        if isinstance(document.get("conversion"), dict):
            return document["conversion"]
        raise RecastError(document)
    if text and not answer.is_error:
        return answer.text
    if answer.is_error or not kind.startswith("application/json"):
        raise Unreachable(f"{answer.url} answered {answer.status_code} {kind}: this is not a Recast service.")
    return answer.json()


def _result(call: Call, answer: httpx2.Response) -> Any:
    """What a call's flow is given: the body, or status and headers where it expects that."""
    if answer.status_code in call.expected:
        return answer.status_code, answer.headers
    return _body(answer, text=call.text)


def _event(told: httpx2.ServerSentEvent) -> Event:
    facts: Any = told.json()
    return Event(told.id, facts["state"], facts["stage"], facts["progress"], facts["verdict"])


class _Arriving:
    """A download beside its place: it takes the name when it is whole, so that no broken one looks like a file."""

    def __init__(self, download: Download, answer: httpx2.Response) -> None:
        self._download = download
        self._total = int(answer.headers.get("content-length", 0))
        self._received, self._digest = 0, hashlib.sha256()
        download.to.parent.mkdir(parents=True, exist_ok=True)
        self._path = download.to.with_name(f".{download.to.name}.{uuid4().hex[:8]}")
        self._file = self._path.open("wb")

    def __enter__(self) -> "_Arriving":
        return self

    def write(self, block: bytes) -> None:
        self._file.write(block)
        self._digest.update(block)
        self._received += len(block)
        if self._download.progress is not None:
            self._download.progress(self._received, self._total)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        try:
            if kind is None:
                if self._download.sha256 not in (None, self._digest.hexdigest()):
                    raise Unreachable(f"{self._download.to.name} arrived with another sha256 than the service told.")
                self._path.rename(self._download.to)
        finally:
            self._path.unlink(missing_ok=True)


class Client(_Common):
    """A Recast service. ``key``: an API key, where the service wants one. Close it, or use it in ``with``."""

    def __init__(self, url: str, key: str | None = None, *, attempts: int = ATTEMPTS) -> None:
        super().__init__(url, key, attempts=attempts)
        self._http = httpx2.Client(**self._settings)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def convert(
        self,
        weights: str | Path,
        *,
        accept: tuple[str, ...] = ACCEPTED,
        wait: bool = True,
        bar: bool = False,
        **request: Any,
    ) -> Conversion:
        """Convert a file (or an uploaded checkpoint's sha256); ``request`` as for ``flows.submit``.

        ``bar``: show the progress, in a terminal or a notebook. Raises RecastError, ConversionFailed, and NotAccepted
        for a verdict that is not in ``accept``.
        """
        return self._run(_converting(weights, accept, request, wait=wait, bar=bar))

    def architectures(self, **filters: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Every architecture that the filters (``query``, ``family``) admit, and plug-ins that could not be loaded."""
        return self._run(flows.architectures(filters))

    def architecture(self, name: str) -> dict[str, Any]:
        """Its options, signature and targets."""
        return self._run(flows.architecture(name))

    def register(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Register a recipe (docs/recipes.md) as an architecture; gives its description, with all sizes."""
        return self._run(flows.register(recipe))

    def unregister(self, name: str) -> None:
        """Delete a recipe, or "name@digest" of it."""
        self._run(flows.unregister(name))

    def preflight(
        self,
        weights: str | Path | Mapping[str, Any],
        *,
        architecture: str | None = None,
        architecture_options: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Would it load, and what is it? Of a file only keys, shapes and dtypes are sent. Raises NoManifest."""
        return self._run(flows.preflight(weights, architecture, architecture_options))

    def get(self, conversion_id: str) -> Conversion:
        return self._run(flows.get(conversion_id))

    def wait(self, conversion: Conversion) -> Conversion:
        """The conversion when it has finished, whatever its end."""
        return self._run(flows.wait(conversion))

    def cancel(self, conversion: Conversion) -> Conversion:
        return self._run(flows.cancel(conversion.id))

    def retry(self, conversion: Conversion) -> Conversion:
        return self._run(flows.retry(conversion.id))

    def report(self, conversion: Conversion) -> Mapping[str, Any]:
        """The report as its JSON."""
        return self._run(flows.report(conversion.id))

    def log(self, conversion: Conversion) -> str:
        """What its process printed, as far as it is kept."""
        return self._run(flows.log(conversion.id))

    def statement_keys(self) -> list[str]:
        """Public keys of the service, for ``verify_bundle``; keep them, to verify without a network."""
        return self._run(flows.statement_keys())

    def conversions(self, **filters: str) -> Iterator[Conversion]:
        """Every conversion that the filters admit, newest first, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            found, cursor = self._run(flows.page({**filters, **({"cursor": cursor} if cursor else {})}))
            yield from found

    def download(
        self,
        conversion: Conversion,
        folder: str | Path,
        *,
        bundle: bool = False,
        unverified: bool = False,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Fetch the artifact's files, or the bundle, into ``folder``; gives their paths."""
        return self._run(flows.download(conversion, folder, bundle=bundle, unverified=unverified, progress=progress))

    def fetch(
        self,
        link: str,
        to: Path,
        parameters: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Fetch what one of a resource's ``links`` leads to into the file ``to``, which appears when it is whole."""
        return self._run(flows.fetch(Download(link, to, parameters or {}, progress=progress, headers=headers or {})))

    def follow(self, conversion: Conversion) -> Iterator[Event]:
        """Its events until it has finished; connects again where the stream breaks off."""
        last, attempt = "", 0
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            try:
                with self._http.stream("GET", f"/v1/conversions/{conversion.id}/events", headers=headers) as answer:
                    if answer.status_code == httpx2.codes.NO_CONTENT:
                        return
                    if answer.is_error:
                        answer.read()
                        _body(answer)
                    for told in httpx2.EventSource(answer):
                        event, last, attempt = _event(told), told.id, 0
                        yield event
            except httpx2.TransportError as error:
                if attempt + 1 >= self._attempts:
                    raise Unreachable(f"The events of {conversion.id} broke off: {error}") from error
                time.sleep(self._pause(attempt, None))
                attempt += 1

    def _run(self, flow: Flow[Result]) -> Result:
        result: Any = None
        while True:
            try:
                step = flow.send(result)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            result = self._patiently(step)

    def _patiently(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        for attempt in range(self._attempts):
            answer: httpx2.Response | None = None
            last = attempt + 1 == self._attempts
            try:
                if isinstance(step, Download):
                    return self._fetch(step)
                with ExitStack() as files:
                    answer = self._http.request(step.method, step.path, **_arguments(step, files))
                if last or answer.status_code not in PASSING:
                    return _result(step, answer)
            except httpx2.TransportError as error:
                if last:
                    raise Unreachable(f"{self._http.base_url} does not answer: {error}") from error
            time.sleep(self._pause(attempt, answer))
        raise AssertionError("the last attempt returns or raises")

    def _fetch(self, download: Download) -> None:
        with self._http.stream("GET", download.path, params=download.parameters, headers=download.headers) as answer:
            if answer.is_error:
                answer.read()
                _body(answer)
            with _Arriving(download, answer) as file:
                for block in answer.iter_raw(BLOCK):
                    file.write(block)


class AsyncClient(_Common):
    """As ``Client``, for asyncio."""

    def __init__(self, url: str, key: str | None = None, *, attempts: int = ATTEMPTS) -> None:
        super().__init__(url, key, attempts=attempts)
        self._http = httpx2.AsyncClient(**self._settings)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def convert(
        self,
        weights: str | Path,
        *,
        accept: tuple[str, ...] = ACCEPTED,
        wait: bool = True,
        bar: bool = False,
        **request: Any,
    ) -> Conversion:
        """As ``Client.convert``."""
        return await self._run(_converting(weights, accept, request, wait=wait, bar=bar))

    async def architectures(self, **filters: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return await self._run(flows.architectures(filters))

    async def architecture(self, name: str) -> dict[str, Any]:
        return await self._run(flows.architecture(name))

    async def register(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Register a recipe (docs/recipes.md) as an architecture; gives its description, with all sizes."""
        return await self._run(flows.register(recipe))

    async def unregister(self, name: str) -> None:
        """Delete a recipe, or "name@digest" of it."""
        await self._run(flows.unregister(name))

    async def preflight(
        self,
        weights: str | Path | Mapping[str, Any],
        *,
        architecture: str | None = None,
        architecture_options: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """As ``Client.preflight``."""
        return await self._run(flows.preflight(weights, architecture, architecture_options))

    async def get(self, conversion_id: str) -> Conversion:
        return await self._run(flows.get(conversion_id))

    async def wait(self, conversion: Conversion) -> Conversion:
        return await self._run(flows.wait(conversion))

    async def cancel(self, conversion: Conversion) -> Conversion:
        return await self._run(flows.cancel(conversion.id))

    async def retry(self, conversion: Conversion) -> Conversion:
        return await self._run(flows.retry(conversion.id))

    async def report(self, conversion: Conversion) -> Mapping[str, Any]:
        return await self._run(flows.report(conversion.id))

    async def log(self, conversion: Conversion) -> str:
        return await self._run(flows.log(conversion.id))

    async def statement_keys(self) -> list[str]:
        return await self._run(flows.statement_keys())

    async def conversions(self, **filters: str) -> AsyncIterator[Conversion]:
        cursor: str | None = ""
        while cursor is not None:
            found, cursor = await self._run(flows.page({**filters, **({"cursor": cursor} if cursor else {})}))
            for conversion in found:
                yield conversion

    async def download(
        self,
        conversion: Conversion,
        folder: str | Path,
        *,
        bundle: bool = False,
        unverified: bool = False,
        progress: Progress | None = None,
    ) -> list[Path]:
        return await self._run(
            flows.download(conversion, folder, bundle=bundle, unverified=unverified, progress=progress)
        )

    async def fetch(
        self,
        link: str,
        to: Path,
        parameters: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """As ``Client.fetch``."""
        wanted = Download(link, to, parameters or {}, progress=progress, headers=headers or {})
        return await self._run(flows.fetch(wanted))

    async def follow(self, conversion: Conversion) -> AsyncIterator[Event]:
        last, attempt = "", 0
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            path = f"/v1/conversions/{conversion.id}/events"
            try:
                async with self._http.stream("GET", path, headers=headers) as answer:
                    if answer.status_code == httpx2.codes.NO_CONTENT:
                        return
                    if answer.is_error:
                        await answer.aread()
                        _body(answer)
                    async for told in httpx2.EventSource(answer):
                        event, last, attempt = _event(told), told.id, 0
                        yield event
            except httpx2.TransportError as error:
                if attempt + 1 >= self._attempts:
                    raise Unreachable(f"The events of {conversion.id} broke off: {error}") from error
                await asyncio.sleep(self._pause(attempt, None))
                attempt += 1

    async def _run(self, flow: Flow[Result]) -> Result:
        result: Any = None
        while True:
            try:
                step = flow.send(result)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            result = await self._patiently(step)

    async def _patiently(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        for attempt in range(self._attempts):
            answer: httpx2.Response | None = None
            last = attempt + 1 == self._attempts
            try:
                if isinstance(step, Download):
                    return await self._fetch(step)
                with ExitStack() as files:
                    answer = await self._http.request(step.method, step.path, **_arguments(step, files))
                if last or answer.status_code not in PASSING:
                    return _result(step, answer)
            except httpx2.TransportError as error:
                if last:
                    raise Unreachable(f"{self._http.base_url} does not answer: {error}") from error
            await asyncio.sleep(self._pause(attempt, answer))
        raise AssertionError("the last attempt returns or raises")

    async def _fetch(self, download: Download) -> None:
        async with self._http.stream(
            "GET", download.path, params=download.parameters, headers=download.headers
        ) as answer:
            if answer.is_error:
                await answer.aread()
                _body(answer)
            with _Arriving(download, answer) as file:
                async for block in answer.aiter_raw(BLOCK):
                    file.write(block)
