"""What requests to other machines have in common: credentials, and which failures may pass."""

import base64
import json
from collections.abc import AsyncIterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2

from app.domain.errors import FetchFailed, RecastError
from app.remotes.grants import Remote, without_query

TIMEOUT = httpx2.Timeout(30.0)
LONGEST_ANSWER = 4 << 20
"""Bytes of a JSON answer."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class Interrupted(Exception):
    """The bytes stopped coming, or nobody answered as it should: another try may do better."""


def authorization(remote: Remote) -> dict[str, str]:
    """The header that a remote's credentials make."""
    token, user = remote.credential("token"), remote.credential("username")
    if token is not None:
        return {"authorization": f"Bearer {token}"}
    if user is not None:
        basic = f"{user}:{remote.credential('password') or ''}".encode()
        return {"authorization": f"Basic {base64.b64encode(basic).decode('ascii')}"}
    return {}


async def send(
    client: httpx2.AsyncClient,
    url: str,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    content: bytes | AsyncIterable[bytes] | None = None,
    refused: type[RecastError] = FetchFailed,
) -> httpx2.Response:
    """An answer whose body is still to come. Raises Interrupted, AddressNotAllowed, and ``refused`` for what no later
    try will do better."""
    try:
        return await client.send(client.build_request(method, url, headers=headers, content=content), stream=True)
    except httpx2.InvalidURL:
        raise refused(f"{without_query(url)} is no URL.") from None
    except httpx2.HTTPError as error:
        if "CERTIFICATE" in str(error):
            raise refused(f"The certificate of {urlsplit(url).hostname} is not one to be trusted.") from None
        raise Interrupted(first_line(error)) from None


async def ask(
    client: httpx2.AsyncClient,
    url: str,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    told: Any = None,
    refused: type[RecastError] = FetchFailed,
    missing: bool = False,
) -> dict[str, Any] | None:
    """The JSON object that a service answers with to ``told``; None for 404 where that may be ``missing``.

    Raises Interrupted, AddressNotAllowed, and ``refused`` for any other answer.
    """
    content = None if told is None else json.dumps(told).encode()
    about = {"accept-encoding": "identity"} | ({} if content is None else {"content-type": "application/json"})
    answer = await send(client, url, {**headers, **about}, method=method, content=content, refused=refused)
    try:
        body = await _short(answer, refused)
        if answer.status_code == 404 and missing:
            return None
        if answer.status_code in PASSING:
            raise Interrupted(f"{without_query(url)} answers {answer.status_code}")
        if not answer.is_success:
            raise refused(f"{without_query(url)} answers {answer.status_code}{_code(body)}.")
        found = json.loads(body or b"{}")
    except ValueError:
        raise refused(f"{without_query(url)} does not answer with JSON.") from None
    finally:
        await answer.aclose()
    return found if isinstance(found, dict) else {}


async def _short(answer: httpx2.Response, refused: type[RecastError]) -> bytes:
    body = b""
    try:
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > LONGEST_ANSWER:
                raise refused("The answer is too long.")
    except httpx2.HTTPError as error:
        raise Interrupted(first_line(error)) from None
    return body


def _code(body: bytes) -> str:
    """The code of a registry's error, where it tells one."""
    try:
        told = json.loads(body)
    except ValueError:
        return ""
    code = told.get("error_code") if isinstance(told, dict) else None
    return f" ({code[:100]})" if isinstance(code, str) else ""


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
