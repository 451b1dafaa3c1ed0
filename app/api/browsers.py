"""What protects people who have a browser: which hosts are answered, whose pages may write, what an answer may do."""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response
from app.domain.errors import RecastError
from app.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OWN_PAGES = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site for what the service's own pages and people themselves ask."""
HIDDEN_ORIGIN = "null"
"""Origin of a form that is sent under the referrer policy below; Sec-Fetch-Site tells whose page it is of."""
HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every answer that does not say otherwise itself."""


CORS: Mapping[str, Any] = {
    "allow_methods": ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
    "allow_headers": (
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "If-None-Match",
        "If-Range",
        "Last-Event-ID",
        "Prefer",
        "Range",
        "Repr-Digest",
        "Tus-Resumable",
        "Upload-Checksum",
        "Upload-Length",
        "Upload-Metadata",
        "Upload-Offset",
        "X-Content-SHA256",
        "X-HTTP-Method-Override",
        "X-Request-ID",
    ),
    "expose_headers": (
        "Content-Disposition",
        "Content-Location",
        "Content-Range",
        "Deprecation",
        "ETag",
        "Link",
        "Location",
        "Preference-Applied",
        "Repr-Digest",
        "Retry-After",
        "Sunset",
        "Tus-Extension",
        "Tus-Max-Size",
        "Tus-Resumable",
        "Tus-Version",
        "Upload-Expires",
        "Upload-Length",
        "Upload-Metadata",
        "Upload-Offset",
        "X-Content-SHA256",
        "X-Recast-Verdict",
        "X-Request-ID",
    ),
    "max_age": 600,
}
"""What pages of an admitted origin may send and read."""


class HostNotAllowed(RecastError):
    code, status, title = "host_not_allowed", 421, "This service is not known under that name"
    hint = "Who runs this service can add the name to RECAST_ALLOWED_HOSTS."


class CrossSiteRefused(RecastError):
    code, status, title = "cross_site_refused", 403, "A page of another origin may not do that"
    hint = "Who runs this service can add the origin to RECAST_CORS_ORIGINS."


def allowed_hosts(settings: Settings) -> frozenset[str] | None:
    """Host names that requests may be addressed to, in lower case; None: any.

    On a loopback address only names of this machine, so that a page whose name was made to point here (DNS rebinding)
    reads nothing.
    """
    if settings.allowed_hosts is not None:
        return frozenset(host.lower() for host in settings.allowed_hosts)
    return LOOPBACK_NAMES | {settings.host.lower()} if settings.on_loopback else None


class BrowserGuard:
    """Refuses what a stranger's page makes a browser ask, and tells browsers how little an answer may do."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None, origins: Collection[str]) -> None:
        self.app = app
        self.hosts = hosts
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self.refusal(scope["method"], Headers(scope=scope))
        if refusal is None:
            await self.app(scope, receive, send_guarded)
        else:
            await problem_response(refusal.problem(), Request(scope))(scope, receive, send_guarded)

    def refusal(self, method: str, headers: Headers) -> RecastError | None:
        """Why a request with these headers is not answered; None if it is."""
        misaddressed = self._misaddressed(headers.getlist("host"))
        if misaddressed is not None or method in SAFE_METHODS:
            return misaddressed
        host = headers.get("host", "")
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site")
        if origin is None:
            site = site or "none"
            return None if site in OWN_PAGES else CrossSiteRefused(f"Sec-Fetch-Site is {site[:50]!r}.")
        if origin == HIDDEN_ORIGIN and site == "same-origin":
            return None
        if origin in self.origins or _is_of(origin, host):
            return None
        return CrossSiteRefused(f"The request comes from a page of {origin[:200]!r}.")

    def _misaddressed(self, named: list[str]) -> RecastError | None:
        """``named``: every Host header; of several a proxy may have taken another one (RFC 9112, section 3.2)."""
        if len(named) > 1:
            return HostNotAllowed(f"The request is addressed to {len(named)} hosts.")
        host = named[0] if named else ""
        if self.hosts is not None and _name(host) not in self.hosts:
            return HostNotAllowed(f"The request is addressed to {host[:200]!r}.")
        return None


def refuse_other_pages(headers: Headers) -> None:
    """Raises CrossSiteRefused unless the headers prove that one of the service's own pages asks.

    Cookies are sent whoever makes a browser ask, so that here silence is no proof, and no other origin is admitted.
    """
    origin = headers.get("origin", HIDDEN_ORIGIN)
    if origin == HIDDEN_ORIGIN:
        own = headers.get("sec-fetch-site") == "same-origin"
    else:
        own = _is_of(origin, headers.get("host", ""))
    if not own:
        raise CrossSiteRefused("Who signed in changes things from the service's own pages only.")


def _is_of(origin: str, host: str) -> bool:
    """Whether an Origin header names the host that the request is addressed to."""
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _name(host: str) -> str:
    """The host of a Host header, without its port and the brackets of IPv6."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""
