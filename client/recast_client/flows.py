"""What the clients do, written once: flows that yield calls and get answers, without input or output of their own.

``Client`` and ``AsyncClient`` drive the same flows (client.py).
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from recast_client.errors import ConversionFailed, NotAccepted, RecastError
from recast_client.manifest import read_manifest
from recast_client.models import Conversion

Progress = Callable[[int, int], None]
"""Called with the bytes that were sent or received and those in all."""

ACCEPTED = ("pass", "pass_with_notes")
LONG_POLL, WATCHED_POLL = 30, 1
"""Seconds that one request waits for the end of a conversion: where only that counts, and where somebody watches."""
Watch = Callable[[Conversion], None]
"""Called with the conversion whenever it was asked for."""
BETWEEN_POLLS = 0.5
"""Seconds; a service that does not wait is not asked without a pause."""


RESUMABLE = 64 << 20
"""Bytes from which a file is sent in parts (tus 1.0), so that a connection that breaks off costs one part."""
PART = 16 << 20
TUS = {"Tus-Resumable": "1.0.0"}


@dataclass(frozen=True)
class Part:
    """Bytes of a file."""

    path: Path
    offset: int
    length: int

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(frozen=True)
class Call:
    """One request. ``uploads``: files sent as form fields of these names beside ``form``, ``progress`` of ``file``;
    ``part`` is the whole body.

    ``expected``: statuses of which status and headers are wanted, not the body; others are errors then.
    """

    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    text: bool = False
    """Whether the answer is a text and no JSON."""
    form: Mapping[str, str] | None = None
    uploads: Mapping[str, Path] = field(default_factory=dict)
    progress: Progress | None = None
    part: Part | None = None
    expected: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Download:
    """Fetch ``path`` into the file ``to``, which appears only when it is whole and has the expected sha256."""

    path: str
    to: Path
    parameters: Mapping[str, str] = field(default_factory=dict)
    sha256: str | None = None
    progress: Progress | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pause:
    """Let ``seconds`` pass."""

    seconds: float


Step = Call | Download | Pause
Result = TypeVar("Result")
Flow = Generator[Step, Any, Result]
"""Yields what to do; gets the parsed JSON body of a call, or its status and headers, and None after anything else."""


def submit(
    weights: str | Path,
    *,
    architecture: str,
    target: str = "onnx",
    options: Mapping[str, Any] | None = None,
    architecture_options: Mapping[str, Any] | None = None,
    accept: tuple[str, ...] = ACCEPTED,
    members: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    probes: str | Path | None = None,
) -> Flow[Conversion]:
    """Ask for one conversion. ``weights``: a file to send, or the sha256 of an uploaded checkpoint.

    ``probes``: an npz of inputs by name to verify with as well. ``accept``: the verdicts that count as success.
    ``members``: further members of the request.
    """
    asked: dict[str, Any] = {
        "architecture": architecture,
        "target": target,
        "options": dict(options or {}),
        "architecture_options": dict(architecture_options or {}),
        **({} if accept == ACCEPTED else {"accept": ",".join(accept)}),
        **(members or {}),
    }
    headers = {"Idempotency-Key": uuid4().hex}
    known = str(weights) if _is_sha256(weights) else None
    if known is None and Path(weights).stat().st_size >= RESUMABLE:
        known = yield from upload(Path(weights), progress)
    if known is not None:
        asked["checkpoint"] = known
    sent = {"probes": probes, "file": weights if known is None else None}
    uploads = {name: Path(file) for name, file in sent.items() if file is not None}
    if not uploads:
        document = yield Call("POST", "/v1/conversions", headers=headers, json=asked)
    else:
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in asked.items()}
        document = yield Call("POST", "/v1/conversions", headers=headers, form=form, uploads=uploads, progress=progress)
    return Conversion(document)


def upload(file: Path, progress: Progress | None = None) -> Flow[str | None]:
    """Send a file in parts and give its sha256; None where the service knows no resumable uploads.

    Raises RecastError for what is no checkpoint.
    """
    size = file.stat().st_size
    filename = b64encode(file.name.encode()).decode()
    begin = {**TUS, "Upload-Length": str(size), "Upload-Metadata": f"filename {filename}"}
    status, told = yield Call("POST", "/v1/uploads", headers=begin, expected=frozenset({201, 404, 405}))
    if status != 201:
        return None
    place, offset = told["location"], 0
    while offset < size:
        part = Part(file, offset, min(PART, size - offset))
        sent = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
        sent["Upload-Checksum"] = f"sha256 {b64encode(hashlib.sha256(part.read()).digest()).decode()}"
        # 409: more has arrived than we were told of, before a connection broke off.
        _, told = yield Call("PATCH", place, headers=sent, part=part, expected=frozenset({204, 409}))
        offset = int(told.get("upload-offset", offset))
        if progress is not None:
            progress(offset, size)
    while True:
        document = yield Call("GET", place, headers={"Prefer": f"wait={LONG_POLL}"})
        if document["problem"] is not None:
            raise RecastError(document["problem"])
        if document["complete"]:
            return str(document["checkpoint"])
        yield Pause(BETWEEN_POLLS)


def convert(accept: tuple[str, ...], submitting: Flow[Conversion], watch: Watch | None = None) -> Flow[Conversion]:
    """Ask for one conversion and wait until it has ended well. Raises ConversionFailed, NotAccepted."""
    conversion = yield from submitting
    finished = yield from wait(conversion, watch)
    return accepted(finished, accept)


def wait(conversion: Conversion, watch: Watch | None = None) -> Flow[Conversion]:
    """The conversion when it has finished, whatever its end."""
    if watch is not None:
        watch(conversion)
    while not conversion.finished:
        headers = {"Prefer": f"wait={WATCHED_POLL if watch else LONG_POLL}"}
        conversion = Conversion((yield Call("GET", _path(conversion.id), headers=headers)))
        if watch is not None:
            watch(conversion)
        if not conversion.finished:
            yield Pause(BETWEEN_POLLS)
    return conversion


def accepted(conversion: Conversion, accept: tuple[str, ...]) -> Conversion:
    """The conversion itself, if it succeeded with one of these verdicts. Raises ConversionFailed, NotAccepted."""
    if conversion.verdict == "inconclusive" and "inconclusive" not in accept:
        raise NotAccepted(conversion, accept)
    if conversion.state != "succeeded":
        raise ConversionFailed(conversion)
    counted = "pass_with_notes" if conversion.verdict == "within_budget" else conversion.verdict
    if counted not in accept:
        raise NotAccepted(conversion, accept)
    return conversion


def architectures(filters: Mapping[str, str]) -> Flow[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Every architecture that the filters admit, and the plug-ins that could not be loaded."""
    entries: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        found = yield Call("GET", "/v1/architectures", parameters={"limit": "1000", **filters, **cursor})
        entries += found["items"]
        if found["next_cursor"] is None:
            return entries, found["broken"]
        cursor = {"cursor": found["next_cursor"]}


def architecture(name: str) -> Flow[dict[str, Any]]:
    described: dict[str, Any] = yield Call("GET", f"/v1/architectures/{name}")
    return described


def register(recipe: Mapping[str, Any]) -> Flow[dict[str, Any]]:
    """Register a recipe, and wait until a worker has built it once."""
    while True:
        document: dict[str, Any] = yield Call(
            "POST", "/v1/architectures", json=dict(recipe), headers={"Prefer": f"wait={LONG_POLL}"}
        )
        if document.get("state") != "checking":
            return document
        yield Pause(BETWEEN_POLLS)


def unregister(name: str) -> Flow[None]:
    yield Call("DELETE", f"/v1/architectures/{name}", expected=frozenset({204}))


def preflight(
    weights: str | Path | Mapping[str, Any],
    architecture: str | None,
    architecture_options: Mapping[str, Any] | None,
) -> Flow[Mapping[str, Any]]:
    """What the service says of a file's keys and shapes. ``weights``: a file, its manifest, or an uploaded sha256."""
    body: dict[str, Any] = {"architecture_options": dict(architecture_options or {})}
    if architecture is not None:
        body["architecture"] = architecture
    if isinstance(weights, Mapping):
        body["manifest"] = weights
    elif _is_sha256(weights):
        body["checkpoint"] = weights
    else:
        body |= {"manifest": read_manifest(weights), "filename": Path(weights).name}
    document: Mapping[str, Any] = yield Call("POST", "/v1/preflight", json=body)
    return document


def get(conversion_id: str) -> Flow[Conversion]:
    return Conversion((yield Call("GET", _path(conversion_id))))


def cancel(conversion_id: str) -> Flow[Conversion]:
    return Conversion((yield Call("POST", f"{_path(conversion_id)}/cancel")))


def retry(conversion_id: str) -> Flow[Conversion]:
    return Conversion((yield Call("POST", f"{_path(conversion_id)}/retry")))


def report(conversion_id: str) -> Flow[Mapping[str, Any]]:
    document: Mapping[str, Any] = yield Call("GET", f"{_path(conversion_id)}/report")
    return document


def statement_keys() -> Flow[list[str]]:
    document = yield Call("GET", "/.well-known/recast-key")
    return [key["public"] for key in document["keys"]]


def log(conversion_id: str) -> Flow[str]:
    text: str = yield Call("GET", f"{_path(conversion_id)}/log", text=True)
    return text


def page(filters: Mapping[str, str]) -> Flow[tuple[list[Conversion], str | None]]:
    """One page of the list, newest first, and the cursor of the next."""
    document = yield Call("GET", "/v1/conversions", parameters=filters)
    return [Conversion(item) for item in document["items"]], document["next_cursor"]


def fetch(download: Download) -> Flow[Path]:
    yield download
    return download.to


def download(
    conversion: Conversion, folder: str | Path, *, bundle: bool, unverified: bool, progress: Progress | None
) -> Flow[list[Path]]:
    """Fetch the artifact (both files where it has two), or the bundle; gives the paths."""
    parameters = {"unverified": "true"} if unverified else {}
    if conversion.artifact is None:
        raise RecastError({"code": "not_ready", "detail": f"The conversion is {conversion.state}: it has no artifact."})
    folder = Path(folder)
    if bundle:
        to = folder / f"{conversion.id}.zip"
        yield Download(f"{_path(conversion.id)}/bundle", to, parameters, progress=progress)
        return [to]
    files = [(conversion.artifact, parameters)]
    if conversion.artifact_data is not None:
        files.append((conversion.artifact_data, {**parameters, "part": "data"}))
    paths = []
    for file, told in files:
        to = folder / Path(file.filename).name
        yield Download(f"{_path(conversion.id)}/artifact", to, told, file.sha256, progress)
        paths.append(to)
    return paths


def _path(conversion_id: str) -> str:
    return f"/v1/conversions/{conversion_id}"


def _is_sha256(weights: str | Path) -> bool:
    return isinstance(weights, str) and len(weights) == 64 and all(c in "0123456789abcdef" for c in weights.lower())
