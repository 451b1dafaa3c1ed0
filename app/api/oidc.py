"""Tokens of an OpenID Connect issuer: who signed them, for whom, and on whose behalf their bearer acts.

OpenID Connect Discovery 1.0; RFC 7517 (keys), RFC 7519 (claims), RFC 8725 (what is to be refused).
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import structlog
from joserfc import jwk, jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jws import JWSRegistry

from app.api.bodies import collect
from app.database.keys import SCOPES
from app.domain.errors import ScopeMissing, Unavailable
from app.domain.text import storable
from app.settings import Settings, is_safe_issuer

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""Signatures that only who holds a private key can make; those of HS256 anybody can who knows the public one."""
KEY_TYPES = frozenset({"RSA", "EC", "OKP"})
LEAST_RSA_BITS = 2048
LEEWAY = 30
"""Seconds that the issuer's clock may differ from ours."""
KEYS_KEPT = 300.0
"""Seconds after which the issuer's keys are asked for again: so long a key works that was taken back."""
ASKED_AGAIN = 10.0
"""Least seconds between two questions to the issuer, however many tokens name a key that is not known."""
KEYS_STALE = 3600.0
"""Seconds that keys are used for while the issuer cannot be asked."""
PATIENCE = 5.0
"""Seconds for one answer of the issuer."""
LARGEST_ANSWER = 256 << 10
LONGEST_SUBJECT = 200

log = structlog.get_logger("recast.api")


@dataclass(frozen=True)
class Bearer:
    """Who shows a token. ``project``: name or id, as the issuer says."""

    subject: str
    project: str
    scopes: frozenset[str]


class InvalidToken(Exception):
    """Nobody has to believe what the token says."""


class IssuerAway(Exception):
    """The issuer does not answer, or not as an issuer does."""


class Issuer:
    """The issuer that the service trusts, and its keys as they were last told."""

    def __init__(self, settings: Settings) -> None:
        assert settings.oidc_issuer
        assert settings.oidc_audience
        self._url = settings.oidc_issuer
        self._project_claim, self._scope_claim = settings.oidc_project_claim, settings.oidc_scope_claim
        self._registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        self._rules = jwt.JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": self._url},
            aud={"essential": True, "value": settings.oidc_audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        self._asking = asyncio.Lock()
        self._keys = jwk.KeySet([])
        self._told_at = self._asked_at = float("-inf")

    async def bearer(self, token: str) -> Bearer:
        """Who shows a token. Raises InvalidToken, ScopeMissing, and Unavailable while no keys are known."""
        try:
            claims = await self._claims(token)
        except (JoseError, ValueError, TypeError) as error:
            raise InvalidToken(storable(str(error).strip(": "), 200)) from None
        project = _claim(claims, self._project_claim)
        if isinstance(project, list) and len(project) == 1:
            project = project[0]
        if not isinstance(project, str):
            raise ScopeMissing(f"The token has no claim {self._project_claim!r} that is one project.", scope="read")
        subject = f"oidc:{storable(claims['sub'], LONGEST_SUBJECT)}"
        return Bearer(subject, storable(project, LONGEST_SUBJECT), _scopes(_claim(claims, self._scope_claim)))

    async def _claims(self, token: str) -> Mapping[str, Any]:
        """What a token says that this issuer signed for this service and that is valid now."""
        await self._know_keys(KEYS_KEPT)
        try:
            told = jwt.decode(token, self._keys, algorithms=ALGORITHMS, registry=self._registry)
        except InvalidKeyIdError:
            await self._know_keys(ASKED_AGAIN)
            told = jwt.decode(token, self._keys, algorithms=ALGORITHMS, registry=self._registry)
        self._rules.validate(told.claims)
        return told.claims

    async def _know_keys(self, seconds: float) -> None:
        """Ask for the keys where they are older than that, unless just asked. Raises Unavailable."""
        async with self._asking:
            now = time.monotonic()
            if now - self._told_at >= seconds and now - self._asked_at >= ASKED_AGAIN:
                self._asked_at = now
                try:
                    self._keys, self._told_at = await self._told_keys(), now
                except (httpx.HTTPError, IssuerAway, ValueError) as error:
                    log.error("issuer_away", issuer=self._url, error=str(error)[:300] or type(error).__name__)
            if now - self._told_at >= KEYS_STALE:
                raise Unavailable("The issuer of tokens cannot be asked for its keys.", retry_after=int(ASKED_AGAIN))

    async def _told_keys(self) -> jwk.KeySet:
        """The issuer's public keys of signatures. Raises httpx.HTTPError, IssuerAway."""
        async with httpx.AsyncClient(timeout=PATIENCE, follow_redirects=False) as client:
            about = await _json(client, f"{self._url.rstrip('/')}/.well-known/openid-configuration")
            if about.get("issuer") != self._url:
                raise IssuerAway(f"it calls itself {about.get('issuer')!r}")
            place = about.get("jwks_uri")
            if not isinstance(place, str) or not is_safe_issuer(place):
                raise IssuerAway(f"its keys are at {place!r}")
            told = (await _json(client, place)).get("keys")
        keys = [key for key in map(_public_key, told if isinstance(told, list) else ()) if key is not None]
        if not keys:
            raise IssuerAway("it tells no keys of signatures")
        return jwk.KeySet(keys)


async def _json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        if answer.status_code != httpx.codes.OK:
            raise IssuerAway(f"{url} answers {answer.status_code}")
        refusal = IssuerAway(f"{url} answers more than {LARGEST_ANSWER} bytes")
        content = await collect(answer.aiter_bytes(), LARGEST_ANSWER, refusal)
    told = json.loads(content)
    if not isinstance(told, dict):
        raise IssuerAway(f"{url} answers no object")
    return told


def _public_key(told: Any) -> jwk.Key | None:
    """A key that signatures are checked with; None for others, and for what is none."""
    if not isinstance(told, dict) or told.get("kty") not in KEY_TYPES or told.get("use", "sig") != "sig":
        return None
    try:
        key = jwk.import_key(told)
        key.ensure_kid()
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, jwk.RSAKey) and key.public_key.key_size < LEAST_RSA_BITS:
        return None
    return key


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by the way to it: ``resource_access.recast.roles``."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _scopes(told: Any) -> frozenset[str]:
    """Of words in a text or a list, ``read`` or ``recast:read``, those that are scopes of this service."""
    words = told.split() if isinstance(told, str) else told if isinstance(told, list) else ()
    return frozenset(word.removeprefix("recast:") for word in words if isinstance(word, str)) & frozenset(SCOPES)
