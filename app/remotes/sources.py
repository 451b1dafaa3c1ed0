"""Where weights are fetched from: bytes from an offset on, of a file that is known to be the same as before."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote, urljoin, urlsplit

import httpx2
import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from app.domain.errors import AddressNotAllowed, FetchFailed, InvalidRequest, PayloadTooLarge
from app.remotes.buckets import bucket_and_path, open_bucket
from app.remotes.egress import Egress, checked_url
from app.remotes.grants import Grants, Remote, without_query

BLOCK = 1 << 20
MOST_REDIRECTS = 5
TIMEOUT = httpx2.Timeout(30.0)
HUB = "https://huggingface.co"
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
"""How files of weights end, the more trusted first."""
LONGEST_ANSWER = 4 << 20
"""Bytes of a JSON answer of a registry."""


class Interrupted(Exception):
    """The bytes stopped coming, or could not be asked for now; another try may have them."""


class Changed(Exception):
    """The file is another one than before: what was read of it is of no use."""


@dataclass(frozen=True)
class Opened:
    """A file from an offset on. ``total`` bytes are the whole of it; ``validator`` names this state of it."""

    chunks: AsyncIterator[bytes]
    total: int | None
    validator: str | None


class Source(Protocol):
    """One file."""

    def open(self, offset: int, validator: str | None) -> AbstractAsyncContextManager[Opened]:
        """The file from ``offset`` on; beyond 0 only if it still has that validator.

        Raises Interrupted, Changed, FetchFailed, AddressNotAllowed.
        """


@dataclass(frozen=True)
class HttpFile:
    """A file by HTTP. ``headers`` go to the first host alone; ``elsewhere``: whether it may redirect to other hosts
    (whose addresses are checked like every one), as hubs do to their stores."""

    url: str
    egress: Egress
    remote: Remote
    headers: Mapping[str, str]
    elsewhere: bool = False

    @asynccontextmanager
    async def open(self, offset: int, validator: str | None) -> AsyncIterator[Opened]:
        verify = self.remote.ssl_context()
        async with self.egress.client(verify=verify, timeout=TIMEOUT) as client:
            answer = await self._ask(client, offset, validator)
            try:
                yield Opened(_read(answer), _total(answer), _validator(answer))
            finally:
                await answer.aclose()

    async def _ask(self, client: httpx2.AsyncClient, offset: int, validator: str | None) -> httpx2.Response:
        url, headers = self.url, {**self.headers, "accept-encoding": "identity"}
        if offset:
            headers |= {"range": f"bytes={offset}-"} | ({"if-range": validator} if validator else {})
        for _ in range(MOST_REDIRECTS + 1):
            answer = await _send(client, url, headers)
            if not answer.is_redirect:
                break
            await answer.aclose()
            url = self._redirected(url, answer.headers.get("location", ""))
            if urlsplit(url).netloc != urlsplit(self.url).netloc:
                headers = {name: value for name, value in headers.items() if name not in self.headers}
        try:
            _check(answer, offset, validator)
        except BaseException:
            await answer.aclose()
            raise
        return answer

    def _redirected(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        parts = urlsplit(target)
        if not self.elsewhere and not target.startswith(self.remote.prefix):
            raise FetchFailed(f"{without_query(self.url)} redirects to a place that may not be read from.")
        if parts.scheme != "https" and urlsplit(url).scheme == "https":
            raise FetchFailed(f"{without_query(self.url)} redirects to a place that is not https.")
        checked_url(target.partition("#")[0], self.egress)
        return target


@dataclass(frozen=True)
class BucketFile:
    """An object of S3 or of Google's Cloud Storage."""

    bucket: ObjectStore
    path: str

    @asynccontextmanager
    async def open(self, offset: int, validator: str | None) -> AsyncIterator[Opened]:
        try:
            meta = await obstore.head_async(self.bucket, self.path)
            now = meta["e_tag"] or meta["last_modified"].isoformat()
            if offset and now != validator:
                raise Changed
            options: Any = {"range": {"offset": offset}} if offset else {}
            if meta["e_tag"]:
                options["if_match"] = meta["e_tag"]
            found = await obstore.get_async(self.bucket, self.path, options=options)
        except FileNotFoundError:
            raise FetchFailed(f"There is no object {self.path}.") from None
        except (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError):
            raise FetchFailed(f"The store does not let the object {self.path} be read.") from None
        except obstore.exceptions.PreconditionError:
            raise Changed from None
        except (BaseError, OSError) as error:
            raise Interrupted(_first_line(error)) from None
        yield Opened(_of_bucket(found.stream(min_chunk_size=BLOCK)), meta["size"], now)


async def source_of(uri: str, remote: Remote, egress: Egress, grants: Grants, owners: tuple[str, ...]) -> Source:
    """The file that a checked URI names, at a remote that was found for it.

    Raises FetchFailed, InvalidRequest, AddressNotAllowed, Interrupted.
    """
    parts = urlsplit(uri)
    guard = Egress((*egress.internal, "0.0.0.0/0", "::/0")) if remote.internal else egress
    match parts.scheme:
        case "s3" | "gs":
            bucket, path = bucket_and_path(uri)
            return BucketFile(open_bucket(parts.scheme, bucket, remote, guard), path)
        case "https" | "http":
            checked_url(uri, guard)
            return HttpFile(uri, guard, remote, _authorization(remote))
        case "hf":
            return HttpFile(_hub_url(uri, remote), guard, remote, _authorization(remote), elsewhere=True)
        case "models":
            return await _registered_model(uri, remote, guard, grants, owners)
    raise InvalidRequest(f"Nothing can be read from {parts.scheme}:.")


def _hub_url(uri: str, remote: Remote) -> str:
    """``hf://org/repo/path/in/repo@revision``; the revision is main where none is named."""
    path, _, revision = uri.removeprefix("hf://").partition("@")
    steps = path.split("/")
    if len(steps) < 3 or not all(steps):
        raise InvalidRequest("A file of a hub is written hf://org/repo/file@revision.")
    endpoint = (remote.endpoint or HUB).rstrip("/")
    return f"{endpoint}/{steps[0]}/{steps[1]}/resolve/{quote(revision or 'main', safe='')}/{'/'.join(steps[2:])}"


# --- MLflow --------------------------------------------------------------------------------------------------------


async def _registered_model(
    uri: str, remote: Remote, egress: Egress, grants: Grants, owners: tuple[str, ...]
) -> Source:
    """``models:/name/version`` of MLflow's registry, or one file of it: ``models:/name/version/path``."""
    name, version, inside = _model_parts(uri)
    if remote.endpoint is None:
        raise FetchFailed("The remote of models: has no endpoint; its operator has to name the MLflow server.")
    registry = f"{remote.endpoint.rstrip('/')}/api/2.0"
    async with egress.client(verify=remote.ssl_context(), timeout=TIMEOUT) as client:
        found = await _json(client, f"{registry}/mlflow/model-versions/get", remote, name=name, version=version)
        model = found["model_version"]
        told = await _json(
            client, f"{registry}/mlflow/model-versions/get-download-uri", remote, name=name, version=version
        )
        root = str(told["artifact_uri"])
        if not root.startswith("mlflow-artifacts:"):
            elsewhere = f"{root.rstrip('/')}/{inside}" if inside else root
            granted = grants.find(elsewhere, owners, "import")
            return await source_of(elsewhere, granted, egress, grants, owners)
        folder = urlsplit(root).path.strip("/")
        if not inside:
            inside = await _only_weights(client, registry, remote, folder, str(model.get("name", name)))
    url = f"{registry}/mlflow-artifacts/artifacts/{quote(folder)}/{quote(inside)}"
    return HttpFile(url, egress, remote, _authorization(remote))


def _model_parts(uri: str) -> tuple[str, str, str]:
    steps = uri.removeprefix("models:/").split("/", 2)
    if len(steps) < 2 or not all(steps):
        raise InvalidRequest("A registered model is written models:/name/version, or models:/name/version/file.")
    return steps[0], steps[1], steps[2] if len(steps) == 3 else ""


async def _only_weights(client: httpx2.AsyncClient, registry: str, remote: Remote, folder: str, name: str) -> str:
    """The one file of weights below a folder, relative to it. Raises FetchFailed where there is none, or several."""
    waiting, found = [""], []
    while waiting:
        place = waiting.pop()
        listed = await _json(
            client, f"{registry}/mlflow-artifacts/artifacts", remote, path=f"{folder}/{place}".rstrip("/")
        )
        for file in listed.get("files", ()):
            path = f"{place}/{PurePosixPath(str(file['path'])).name}".lstrip("/")
            if file.get("is_dir"):
                waiting.append(path)
            elif path.endswith(WEIGHTS):
                found.append(path)
        if len(found) + len(waiting) > 1000:
            break
    for suffix in WEIGHTS:
        of_kind = [path for path in found if path.endswith(suffix)]
        if len(of_kind) == 1:
            return of_kind[0]
        if of_kind:
            break
    raise FetchFailed(
        f"The model {name} holds {len(found)} files of weights, not one.",
        hint="Name one: models:/name/version/path/of/the/file.",
        candidates=sorted(found),
    )


# --- HTTP ----------------------------------------------------------------------------------------------------------


def _authorization(remote: Remote) -> dict[str, str]:
    token, user = remote.credential("token"), remote.credential("username")
    if token is not None:
        return {"authorization": f"Bearer {token}"}
    if user is not None:
        auth = httpx2.BasicAuth(user, remote.credential("password") or "")
        request = next(auth.auth_flow(httpx2.Request("GET", "https://unused.invalid")))
        return {"authorization": request.headers["authorization"]}
    return {}


async def _send(client: httpx2.AsyncClient, url: str, headers: Mapping[str, str]) -> httpx2.Response:
    try:
        return await client.send(client.build_request("GET", url, headers=headers), stream=True)
    except AddressNotAllowed:
        raise
    except httpx2.InvalidURL:
        raise FetchFailed(f"{without_query(url)} is no URL.") from None
    except httpx2.HTTPError as error:
        if "CERTIFICATE" in str(error):
            raise FetchFailed(f"The certificate of {urlsplit(url).hostname} is not one to be trusted.") from None
        raise Interrupted(_first_line(error)) from None


def _check(answer: httpx2.Response, offset: int, validator: str | None) -> None:
    """That an answer is the file from the offset on. Raises Interrupted, Changed, FetchFailed."""
    status = answer.status_code
    where = without_query(str(answer.request.url))
    if status >= 500 or status in (408, 425, 429):
        raise Interrupted(f"{where} answers {status}")
    if offset and status in (200, 412, 416):
        raise Changed  # or a server that knows no ranges: it begins anew
    if status != (206 if offset else 200):
        raise FetchFailed(f"{where} answers {status}.")
    if offset and not answer.headers.get("content-range", "").startswith(f"bytes {offset}-"):
        raise Changed
    if offset and validator and _validator(answer) not in (None, validator):
        raise Changed
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise FetchFailed(f"{where} answers in an encoding that was not asked for.")


def _validator(answer: httpx2.Response) -> str | None:
    """A strong entity tag or a date (RFC 9110, section 13.1.5); None where a range cannot be tied to a state."""
    tag: str | None = answer.headers.get("etag")
    if tag is not None and not tag.startswith("W/"):
        return tag
    return answer.headers.get("last-modified")


def _total(answer: httpx2.Response) -> int | None:
    told: str = answer.headers.get("content-range", "").rpartition("/")[2] or answer.headers.get("content-length", "")
    return int(told) if told.isdigit() and len(told) < 20 else None


async def _read(answer: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw(BLOCK):
            yield chunk
    except httpx2.HTTPError as error:
        raise Interrupted(_first_line(error)) from None


async def _of_bucket(chunks: AsyncIterable[Any]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield bytes(chunk)
    except (BaseError, OSError) as error:
        raise Interrupted(_first_line(error)) from None


async def _json(client: httpx2.AsyncClient, url: str, remote: Remote, **parameters: str) -> dict[str, Any]:
    """A registry's answer. Raises Interrupted, FetchFailed."""
    asked = str(httpx2.URL(url, params=parameters))
    answer = await _send(client, asked, _authorization(remote))
    try:
        _check(answer, 0, None)
        body = b""
        async for chunk in _read(answer):
            body += chunk
            if len(body) > LONGEST_ANSWER:
                raise PayloadTooLarge("A registry's answer is too long.")
        told = json.loads(body)
    except ValueError:
        raise FetchFailed(f"{without_query(url)} does not answer with JSON.") from None
    finally:
        await answer.aclose()
    if not isinstance(told, dict):
        raise FetchFailed(f"{without_query(url)} does not answer with a JSON object.")
    return told


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
