"""Who asks: the key that a request proves itself with, the project that it stands for, and what it may do."""

import base64
import binascii
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Request
from sqlalchemy.exc import SQLAlchemyError

from app.api.browsers import SAFE_METHODS, refuse_other_pages
from app.api.oidc import InvalidToken, Issuer
from app.api.problems import request_id
from app.database import audit, keys, limits, projects, sign_ins
from app.database.keys import SCOPES
from app.database.projects import DEFAULT
from app.database.session import Database
from app.database.tables import AuditEntry
from app.domain.errors import NotFound, RecastError, ScopeMissing, Unauthenticated
from app.settings import Settings

REMEMBERED_SECONDS = 2.0
"""How long a key that was found valid is taken for valid without asking again; a revoked one works as long."""
REMEMBERED = 10_000
LOGGED_ID = 40
"""Characters of a conversion's id that log lines repeat."""
CHALLENGE = 'Bearer realm="recast", Basic realm="recast"'
"""Basic, with any user name and the key as password, is for tools that know nothing else."""
CHALLENGE_TO_PAGES = 'Bearer realm="recast"'
"""To requests of the service's own pages: a browser would ask people for a name and a password."""
SIGN_IN_COOKIE = "recast_sign_in"

log = structlog.get_logger("recast.api")


@dataclass(frozen=True)
class Principal:
    """On whose behalf a request acts."""

    project: str
    scopes: frozenset[str]
    key_id: str | None = None
    """Of its key, or ``oidc:`` and the subject of its token."""
    requests_per_minute: int | None = None
    signed_in: bool = False
    """Whether it is a person whose browser holds the sign-in, not the key."""

    @property
    def operator(self) -> bool:
        """Whether it may act for every project: an admin of the default one."""
        return "admin" in self.scopes and self.project == DEFAULT

    def require(self, scope: str) -> None:
        """Raises ScopeMissing."""
        if scope not in self.scopes:
            raise ScopeMissing(f"The key has no scope {scope!r}.", scope=scope)

    def require_operator(self) -> None:
        """Raises ScopeMissing."""
        self.require("admin")
        if not self.operator:
            raise ScopeMissing("That takes an admin of the project default.", scope="admin")


ANYBODY = Principal(DEFAULT, frozenset(SCOPES))
"""Who needs no key."""


class Authenticator:
    """Finds out on whose behalf a request acts."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._keys_required = settings.keys_required
        self._database = database
        self._issuer = None if settings.oidc_issuer is None else Issuer(settings)
        self._found: dict[tuple[bool, str], tuple[float, Principal]] = {}
        """By whether it is a sign-in, and the secret's digest: until when it is taken for valid, and whose it is."""

    async def principal(self, request: Request) -> Principal:
        """Raises Unauthenticated for a key or token that is not valid, and for none where one is required;
        CrossSiteRefused for what a page of another origin would change in the name of who signed in.
        """
        secret = _told(request.headers.get("authorization"))
        signed_in = secret is None
        secret = secret or request.cookies.get(SIGN_IN_COOKIE)
        if signed_in and secret and request.method not in SAFE_METHODS:
            refuse_other_pages(request.headers)
        if secret is None:
            if self._keys_required:
                raise Unauthenticated("The request has no key.", www_authenticate=_challenge(request))
            return ANYBODY
        asked = (signed_in, keys.digest(secret))
        until, principal = self._found.get(asked, (0.0, ANYBODY))
        if until < time.monotonic():
            try:
                principal = await self._ask(secret, signed_in)
            except Unauthenticated as error:
                if signed_in and not self._keys_required:
                    return ANYBODY
                raise Unauthenticated(error.detail, www_authenticate=_challenge(request)) from None
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            self._found[asked] = (time.monotonic() + REMEMBERED_SECONDS, principal)
        if principal.requests_per_minute is not None:
            async with self._database.transaction() as session:
                await limits.take_request(session, principal.key_id or "", principal.requests_per_minute)
        return principal

    async def _ask(self, secret: str, signed_in: bool) -> Principal:
        if signed_in or self._issuer is None or secret.startswith(keys.PREFIX):
            return await self._of_key(secret, signed_in)
        return await self._of_token(self._issuer, secret)

    async def _of_token(self, issuer: Issuer, token: str) -> Principal:
        """Raises Unauthenticated, ScopeMissing for a project that there is not, Unavailable."""
        try:
            bearer = await issuer.bearer(token)
        except InvalidToken as error:
            raise Unauthenticated(f"The token is not valid: {error}.", www_authenticate=CHALLENGE) from None
        async with self._database.transaction() as session:
            try:
                project = await projects.named(session, bearer.project)
            except NotFound:
                raise ScopeMissing(f"The token is of no project here: {bearer.project!r}.", scope="read") from None
            allowed = await limits.of(session, project.id)
        return Principal(project.id, bearer.scopes, bearer.subject, allowed.requests_per_minute)

    async def sign_in(self, secret: str) -> str:
        """The secret of a sign-in with that key, for a browser. Raises Unauthenticated."""
        async with self._database.transaction() as session:
            key = await keys.find_valid(session, secret)
            if key is None:
                raise Unauthenticated("The key is not valid.", www_authenticate=CHALLENGE_TO_PAGES)
            return await sign_ins.begin(session, key)

    async def sign_out(self, secret: str) -> None:
        """End a sign-in, on other replicas within REMEMBERED_SECONDS."""
        self._found.pop((True, keys.digest(secret)), None)
        async with self._database.transaction() as session:
            await sign_ins.end(session, secret)

    async def _of_key(self, secret: str, signed_in: bool) -> Principal:
        async with self._database.transaction() as session:
            find = sign_ins.find_key if signed_in else keys.find_valid
            key = await find(session, secret)
            if key is None:
                raise Unauthenticated("The key is not valid.", www_authenticate=CHALLENGE)
            allowed = await limits.of(session, key.project_id)
        return Principal(key.project_id, frozenset(key.scopes), key.id, allowed.requests_per_minute, signed_in)

    async def note(self, request: Request, principal: Principal, outcome: str) -> None:
        """Record what was asked and how it ended in the audit log."""
        entry = AuditEntry(
            project_id=principal.project,
            key_id=principal.key_id,
            action=getattr(request.scope.get("route"), "name", request.method),
            subject=request.url.path[:500],
            outcome=outcome,
            client=request.client.host if request.client else "unknown",
            request_id=request_id(request),
        )
        try:
            async with self._database.transaction() as session:
                audit.record(session, entry)
        except SQLAlchemyError as error:
            log.error("audit_not_recorded", action=entry.action, subject=entry.subject, error=str(error)[:200])


async def _authenticated(request: Request) -> AsyncIterator[Principal]:
    """The principal of a request, whose method must be within its scopes; what it changes is noted."""
    authenticator: Authenticator = request.app.state.authenticator
    principal = await authenticator.principal(request)
    if conversion := request.path_params.get("conversion_id"):
        structlog.contextvars.bind_contextvars(conversion=str(conversion)[:LOGGED_ID])
    if request.method in SAFE_METHODS:
        principal.require("read")
        yield principal
        return
    outcome = "ok"
    try:
        principal.require("convert")
        yield principal
    except RecastError as error:
        outcome = error.problem().code
        raise
    except BaseException:
        outcome = "internal"
        raise
    finally:
        await authenticator.note(request, principal, outcome)


def _challenge(request: Request) -> str:
    return CHALLENGE_TO_PAGES if "sec-fetch-mode" in request.headers else CHALLENGE


def _told(header: str | None) -> str | None:
    """The key in an Authorization header; None where there is none. Raises Unauthenticated for other schemes."""
    if header is None:
        return None
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, ValueError):
            pass
    raise Unauthenticated("The Authorization header holds no key.", www_authenticate=CHALLENGE)


Acting = Annotated[Principal, Depends(_authenticated)]
"""On whose behalf the request acts."""
