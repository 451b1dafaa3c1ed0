"""Where weights are fetched from: bytes from an offset on, of a file that is known to be the same as before."""

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urljoin, urlsplit

import httpx2
import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from app.domain.errors import FetchFailed, InvalidRequest
from app.remotes.buckets import bucket_and_path, open_bucket
from app.remotes.egress import Egress, checked_url
from app.remotes.grants import Grants, Remote, checked_uri, is_within, without_query
from app.remotes.http import PASSING, TIMEOUT, Interrupted, authorization, first_line, send
from app.remotes.mlflow import located

BLOCK = 1 << 20
MOST_REDIRECTS = 5
HUB = "https://huggingface.co"


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
            answer = await send(client, url, headers)
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
        """Where a redirect leads. Raises FetchFailed, AddressNotAllowed."""
        here = without_query(self.url)
        try:
            target = urljoin(url, location).partition("#")[0]
            parts = checked_url(target, self.egress)
            if not self.elsewhere and not is_within(checked_uri(target), self.remote.prefix):
                raise FetchFailed(f"{here} redirects to a place that may not be read from.")
        except (ValueError, InvalidRequest):
            raise FetchFailed(f"{here} redirects to what is no place to read from.") from None
        if parts.scheme != "https" and urlsplit(url).scheme == "https":
            raise FetchFailed(f"{here} redirects to a place that is not https.")
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
            raise Interrupted(first_line(error)) from None
        yield Opened(_of_bucket(found.stream(min_chunk_size=BLOCK)), meta["size"], now)


async def source_of(uri: str, remote: Remote, egress: Egress, grants: Grants, owners: tuple[str, ...]) -> Source:
    """The file that a checked URI names, at a remote that was found for it.

    Raises FetchFailed, InvalidRequest, AddressNotAllowed, Interrupted.
    """
    parts = urlsplit(uri)
    guard = egress.admitting(remote.internal_hosts(uri))
    match parts.scheme:
        case "s3" | "gs":
            bucket, path = bucket_and_path(uri)
            return BucketFile(open_bucket(parts.scheme, bucket, remote, guard), path)
        case "https" | "http":
            checked_url(uri, guard)
            return HttpFile(uri, guard, remote, authorization(remote))
        case "hf":
            return HttpFile(_hub_url(uri, remote), guard, remote, authorization(remote), elsewhere=True)
        case "models":
            place = await located(uri, remote, guard)
            if place.startswith(("https:", "http:")):
                return HttpFile(place, guard, remote, authorization(remote))
            granted = grants.find(checked_uri(place), owners, "import")
            return await source_of(place, granted, egress, grants, owners)
    raise InvalidRequest(f"Nothing can be read from {parts.scheme}:.")


def _hub_url(uri: str, remote: Remote) -> str:
    """``hf://org/repo/path/in/repo@revision``; the revision is main where none is named."""
    path, _, revision = uri.removeprefix("hf://").partition("@")
    steps = path.split("/")
    if len(steps) < 3 or not all(steps):
        raise InvalidRequest("A file of a hub is written hf://org/repo/file@revision.")
    endpoint = (remote.endpoint or HUB).rstrip("/")
    return f"{endpoint}/{steps[0]}/{steps[1]}/resolve/{quote(revision or 'main', safe='')}/{'/'.join(steps[2:])}"


def _check(answer: httpx2.Response, offset: int, validator: str | None) -> None:
    """That an answer is the file from the offset on. Raises Interrupted, Changed, FetchFailed."""
    status = answer.status_code
    where = without_query(str(answer.request.url))
    if status in PASSING:
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
        raise Interrupted(first_line(error)) from None


async def _of_bucket(chunks: AsyncIterable[Any]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield bytes(chunk)
    except (BaseError, OSError) as error:
        raise Interrupted(first_line(error)) from None
