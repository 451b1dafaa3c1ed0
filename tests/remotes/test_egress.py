"""The guard of requests to addresses that clients choose."""

import ipaddress
import socket
from collections.abc import Iterator

import httpx2
import pytest

from app.domain.errors import AddressNotAllowed, InvalidRequest
from app.remotes.egress import Egress, checked_url, is_public
from tests.platform.receiver import Receiver, receiving

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class Names:
    """A resolver that gives another answer each time it is asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[object]:
        self.asked.append(host)
        answer = self.answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.2.3.4", False),
        ("100.64.0.1", False),
        ("fec0::1", False),
        ("169.254.169.254", False),
        ("192.168.1.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("ff02::1", False),
        ("ff0e::1", False),
        ("168.63.129.16", False),
        ("192.0.0.192", False),
        ("192.88.99.1", False),
        ("198.18.0.1", False),
        ("203.0.113.9", False),
        ("0.1.2.3", False),
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("64:ff9b:1::a9fe:a9fe", False),
        ("100::1", False),
        ("2001:db8::1", False),
        ("3fff::1", False),
        ("5f00::1", False),
    ],
)
def test_only_addresses_of_the_internet_are_public(address: str, public: bool):
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    "host",
    [
        *("0x7f.1", "0x7f000001", "2130706433", "017700000001", "127.1", "0", "00000.0", "LOCALHOST", "[::]"),
        *("[::ffff:7f00:1]", "[0:0:0:0:0:ffff:a9fe:a9fe]"),
    ],
)
async def test_this_machine_is_not_reached_by_another_notation(host: str):
    async with Egress().client() as client:
        with pytest.raises(AddressNotAllowed):
            await client.get(f"https://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        *("https://0177.0.0.1/", "https://127\u30020\u30020\u30021/", "https://user@example.com/", "https://host:0/"),
        *("https://169.254.169.254\\@example.com/", "https://example.com\t@localhost/", "https://exa mple.com/"),
        *(
            "https://[::1",
            "https://[v1.x]/",
            "https://example.com:99999/",
            "https:///x",
        ),
    ],
)
def test_what_no_client_can_ask_is_no_url(url: str):
    with pytest.raises(InvalidRequest):
        checked_url(url, Egress())


async def test_one_address_that_is_not_public_is_enough_to_refuse_a_name(monkeypatch: pytest.MonkeyPatch):
    names = Names(["93.184.216.34", "127.0.0.1"])
    monkeypatch.setattr("app.remotes.egress.resolve", names.getaddrinfo)
    async with Egress().client() as client:
        with pytest.raises(AddressNotAllowed):
            await client.get("https://rebinding.example/")


async def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch, receiver: Receiver):
    names = Names(["127.0.0.1"], ["10.255.255.1"])
    monkeypatch.setattr("app.remotes.egress.resolve", names.getaddrinfo)
    port = receiver.url.rpartition(":")[2]
    async with Egress(("named.example",)).client() as client:
        await client.post(f"http://named.example:{port}/pinned", content=b"x")
    assert names.asked == ["named.example"]
    (message,) = receiver.at("/pinned", 1)
    assert message.headers["host"] == f"named.example:{port}"


async def test_a_network_admits_its_addresses_under_any_name(receiver: Receiver):
    async with Egress(("127.0.0.0/8", "::1/128")).client() as client:
        answer = await client.post(receiver.url + "/network", content=b"x")
    assert answer.status_code == 204
    async with Egress(("10.0.0.0/8",)).client() as client:
        with pytest.raises(AddressNotAllowed):
            await client.post(receiver.url + "/network", content=b"x")


async def test_a_name_that_nobody_knows_is_no_connection(monkeypatch: pytest.MonkeyPatch):
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("app.remotes.egress.resolve", unknown)
    async with Egress().client() as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get("https://nowhere.invalid/")
