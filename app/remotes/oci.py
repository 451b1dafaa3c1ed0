"""Pushing to a registry of the OCI distribution specification (1.1), with the guard that every request here has.

oras-py would follow redirects and token services to wherever a registry names; this is what pushing takes of it.
"""

import hashlib
import json
import re
from collections.abc import AsyncIterable
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import httpx2

from app.domain.errors import PublishFailed
from app.remotes.egress import Egress, checked_url
from app.remotes.grants import Remote
from app.remotes.http import PASSING, TIMEOUT, Interrupted, ask, authorization, send
from app.remotes.published import Model

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
ARTIFACT_TYPE = "application/vnd.recast.model.v1"
REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


async def push(uri: str, model: Model, remote: Remote, egress: Egress) -> dict[str, Any]:
    """Push a model's files as one artifact to ``oci://registry/repository:tag``; gives the receipt.

    What the registry has already is not sent again. Raises PublishFailed, Interrupted, AddressNotAllowed.
    """
    host, repository, tag = _parts(uri, model)
    async with egress.client(verify=remote.ssl_context(), timeout=TIMEOUT) as client:
        scheme = urlsplit(remote.endpoint).scheme if remote.endpoint else "https"
        registry = _Registry(client, f"{scheme}://{host}", repository, remote, egress)
        await registry.blob(_digest(EMPTY), len(EMPTY), EMPTY)
        for file in model.files:
            await registry.blob(f"sha256:{file.sha256}", file.size, file.open())
        manifest = json.dumps(_manifest(model), sort_keys=True).encode()
        await registry.manifest(tag, manifest)
    digest = _digest(manifest)
    return {"uri": f"oci://{host}/{repository}@{digest}", "tag": tag, "digest": digest, "sha256": model.artifact.sha256}


def _parts(uri: str, model: Model) -> tuple[str, str, str]:
    host, _, rest = uri.removeprefix("oci://").partition("/")
    repository, _, tag = rest.partition(":")
    tag = tag or model.conversion_id
    if not host or not REPOSITORY.fullmatch(repository) or not TAG.fullmatch(tag):
        raise PublishFailed("A place in a registry is written oci://registry/repository:tag.")
    return host, repository, tag


def _manifest(model: Model) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": _digest(EMPTY), "size": len(EMPTY)},
        "layers": [
            {
                "mediaType": file.media_type,
                "digest": f"sha256:{file.sha256}",
                "size": file.size,
                "annotations": {"org.opencontainers.image.title": file.filename, "recast.role": file.role},
            }
            for file in model.files
        ],
        "annotations": model.facts(),
    }


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Registry:
    """One repository of a registry."""

    def __init__(self, client: httpx2.AsyncClient, root: str, repository: str, remote: Remote, egress: Egress) -> None:
        self._client = client
        self._root = f"{root}/v2/{repository}"
        self._repository = repository
        self._remote = remote
        self._egress = egress
        self._headers: dict[str, str] = {}

    async def blob(self, digest: str, size: int, content: bytes | AsyncIterable[bytes]) -> None:
        """Upload a blob unless it is there."""
        there = await self._asked("HEAD", f"{self._root}/blobs/{digest}")
        if there.status_code == 200:
            return
        begun = await self._asked("POST", f"{self._root}/blobs/uploads/", {"content-length": "0"})
        _expect(begun, 202)
        place = urljoin(str(begun.request.url), begun.headers.get("location", ""))
        if urlsplit(place).netloc != urlsplit(self._root).netloc:
            checked_url(place, self._egress)
        place += ("&" if urlsplit(place).query else "?") + urlencode({"digest": digest})
        headers = {"content-type": "application/octet-stream", "content-length": str(size)}
        _expect(await self._asked("PUT", place, headers, content), 201)

    async def manifest(self, tag: str, manifest: bytes) -> None:
        _expect(await self._asked("PUT", f"{self._root}/manifests/{tag}", {"content-type": MANIFEST}, manifest), 201)

    async def _asked(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
    ) -> httpx2.Response:
        """An answer, its body left. The first refusal says how to prove who asks; no body was sent before it."""
        while True:
            answer = await send(
                self._client,
                url,
                {**self._headers, **(headers or {})},
                method=method,
                content=content,
                refused=PublishFailed,
            )
            await answer.aclose()
            if answer.status_code != 401 or self._headers:
                return answer
            self._headers = await self._proof(answer.headers.get("www-authenticate", ""))
            if not self._headers:
                return answer

    async def _proof(self, challenge: str) -> dict[str, str]:
        """The header for a challenge: the credentials themselves, or a token that a service gives for them."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() != "bearer":
            return authorization(self._remote)
        told = dict(CHALLENGE.findall(rest))
        wanted = {"service": told.get("service", ""), "scope": f"repository:{self._repository}:pull,push"}
        realm = told.get("realm", "")
        checked_url(realm, self._egress)
        # A registry must not have the credentials sent to whom it likes.
        named = self._remote.token_service
        own = urlsplit(realm).netloc == urlsplit(self._root).netloc or (named is not None and realm.startswith(named))
        credentials = authorization(self._remote) if own else {}
        token = await ask(self._client, f"{realm}?{urlencode(wanted)}", credentials, refused=PublishFailed) or {}
        given = token.get("token") or token.get("access_token")
        return {"authorization": f"Bearer {given}"} if given else {}


def _expect(answer: httpx2.Response, status: int) -> None:
    if answer.status_code in PASSING:
        raise Interrupted(f"the registry answers {answer.status_code}")
    if answer.status_code != status:
        raise PublishFailed(f"The registry answers {answer.status_code}, not {status}.")
