"""Requests to addresses that clients choose, so guarded that none reaches what only this machine can reach.

A name is resolved once and each of its addresses is checked; the connection then goes to a checked address, whatever
the name means a moment later. Redirects are answers like others: who follows one asks anew.
"""

import asyncio
import ipaddress
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx2

from app.domain.errors import AddressNotAllowed, InvalidRequest

LONGEST_URL = 2_000
RESOLVE_SECONDS = 10.0
TRANSLATED = tuple(ipaddress.ip_network(name) for name in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
"""IPv6 addresses that stand for IPv4 ones: NAT64 (RFC 6052, RFC 8215), 6to4, Teredo. They are never needed, and would
hide where a connection goes."""

NOBODYS = tuple(
    ipaddress.ip_network(name)
    for name in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "5f00::/16")
)
"""Addresses that look public to Python, or to some of its versions, and lead to no host of the internet: what a cloud
tells its machines from (Azure, Oracle's in RFC 6890's block), old 6to4 relays (RFC 7526), documentation (RFC 9637),
segment routing (RFC 9602)."""

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Egress:
    """What may be reached. ``internal``: host names, addresses and networks that may be reached although they are not
    public, as the setting internal_hosts names them."""

    internal: tuple[str, ...] = ()

    def admitting(self, hosts: tuple[str, ...]) -> "Egress":
        """The same and these hosts, although they are not public."""
        return Egress((*self.internal, *hosts))

    def is_internal(self, host: str, address: Address | None) -> bool:
        """Whether a host, or the address that it leads to, was named as internal."""
        if host.lower() in (name.lower() for name in self.internal):
            return True
        return address is not None and any(address in network for network in self._networks(address.version))

    def refuse(self, host: str, address: Address) -> None:
        """Raises AddressNotAllowed for an address of ``host`` that is neither public nor named as internal."""
        if not is_public(address) and not self.is_internal(host, address):
            raise AddressNotAllowed(f"{host} leads to an address that is not public.", host=host)

    def client(
        self, *, verify: ssl.SSLContext | bool = True, timeout: float | httpx2.Timeout = 30
    ) -> httpx2.AsyncClient:
        """A client of which every request is guarded. It follows no redirects and knows no proxies.

        Its requests raise AddressNotAllowed too.
        """
        transport = _Guarded(self, verify)
        return httpx2.AsyncClient(transport=transport, timeout=timeout, follow_redirects=False, trust_env=False)

    def _networks(self, version: int) -> list[IPv4Network | IPv6Network]:
        found = []
        for name in self.internal:
            with suppress(ValueError):  # a host's name
                network = ipaddress.ip_network(name)
                if network.version == version:
                    found.append(network)
        return found


async def resolve(host: str, port: int, *, type: int) -> list[Any]:
    """getaddrinfo(3) of the running loop."""
    return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=type))


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet: not to this machine, its networks, or to nobody."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return is_public(address.ipv4_mapped)
    if any(address in network for network in (*TRANSLATED, *NOBODYS) if network.version == address.version):
        return False
    if isinstance(address, IPv6Address) and address.is_site_local:  # RFC 3879: of old networks
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def checked_url(text: str, egress: Egress) -> SplitResult:
    """An https URL (http for hosts that are named as internal) without user, password and fragment.

    Raises InvalidRequest; AddressNotAllowed where the host is written as an address that may not be reached.
    """
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
        httpx2.URL(text)  # what cannot be asked later is refused now
    except (ValueError, httpx2.InvalidURL):
        raise InvalidRequest("The URL is not well-formed.") from None
    if len(text) > LONGEST_URL or not text.isascii() or any(character <= " " for character in text) or not host:
        raise InvalidRequest(f"A URL has at most {LONGEST_URL} visible ASCII characters, and a host.")
    if url.username is not None or url.password is not None or url.fragment or port == 0:
        raise InvalidRequest("The URL must have neither user, password nor fragment.")
    address = _address(host)
    if address is not None:
        egress.refuse(host, address)
    if url.scheme != "https" and not (url.scheme == "http" and egress.is_internal(host, address)):
        raise InvalidRequest("The URL must begin with https://.", hint="Who runs the service can admit internal hosts.")
    return url


def _address(host: str) -> Address | None:
    """The address that a host is written as; None for a name, which is resolved when it is used."""
    with suppress(ValueError):
        return ipaddress.ip_address(host)
    return None


class _Guarded(httpx2.AsyncBaseTransport):
    """Sends each request to an address that was checked. No connection is used twice: it belongs to one name."""

    def __init__(self, egress: Egress, verify: ssl.SSLContext | bool) -> None:
        self._egress = egress
        self._inner = httpx2.AsyncHTTPTransport(
            verify=verify, trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        host = request.url.host
        addresses = await self._checked(host, request.url.port or {"https": 443, "http": 80}[request.url.scheme])
        for left, address in enumerate(addresses, 1 - len(addresses)):
            pinned = httpx2.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if left == 0:
                    raise
        raise AssertionError("the last address answers or raises")

    async def _checked(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, all of which may be reached."""
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await resolve(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise httpx2.ConnectError(f"{host} cannot be resolved") from error
        addresses = list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
        for address in addresses:
            self._egress.refuse(host, address)
        return addresses

    async def aclose(self) -> None:
        await self._inner.aclose()
