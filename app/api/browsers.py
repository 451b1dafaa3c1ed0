"""What protects people who have a browser: which hosts are answered, whose pages may write, what an answer may do."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
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
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
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


@dataclass(frozen=True)
class Hosts:
    """What requests may be addressed to: ``names`` in lower case, None for any; ``addresses``: every IP address too."""

    names: frozenset[str] | None
    addresses: bool = False

    def admits(self, host: str) -> bool:
        """``host``: of a Host header, with its port and the brackets of IPv6 where it has them."""
        if self.names is None:
            return True
        name = _name(host)
        return name in self.names or (self.addresses and _is_address(name))


def allowed_hosts(settings: Settings) -> Hosts:
    """What the service is known under.

    A page whose name was made to point here (DNS rebinding) must read nothing where nobody has to prove who they are:
    on a loopback address names of this machine alone are answered, beyond it no name but those of the settings. An
    address is no name: who asks for one is of a page that came from it. Names of this machine are answered in any case:
    whoever looks after the service from within its container or pod uses them.
    """
    own = LOOPBACK_NAMES | {settings.host.lower()}
    if settings.allowed_hosts is not None:
        return Hosts(LOOPBACK_NAMES | {host.lower() for host in settings.allowed_hosts})
    if settings.on_loopback:
        return Hosts(own)
    return Hosts(None) if settings.keys_required else Hosts(own, addresses=True)


def misdirected(target: bytes, host: str) -> RecastError | None:
    """Why a request is not answered whose target names another host than Host does; None if it is.

    ``target``: the request's, as it was sent: in absolute form it names a host too (RFC 9112, section 3.2.2).
    """
    if target[:1] in (b"/", b"*"):
        return None
    url = urlsplit(target.decode("latin-1"))
    port = DEFAULT_PORTS.get(url.scheme, "")
    addressed, told = (name.lower().removesuffix(port) for name in (url.netloc.rpartition("@")[2], host))
    if addressed == told:
        return None
    return HostNotAllowed(f"The request is addressed to two hosts: {addressed[:200]!r} and {told[:200]!r}.")


class BrowserGuard:
    """Refuses what a stranger's page makes a browser ask, and tells browsers how little an answer may do."""

    def __init__(self, app: ASGIApp, hosts: Hosts, origins: Collection[str]) -> None:
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
        if not self.hosts.admits(host):
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
    """The host of a Host header, without its port and the brackets of IPv6; empty where it holds more than these."""
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "").removesuffix(".") if parts.netloc == host and "@" not in host else ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
