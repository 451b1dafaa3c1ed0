"""Answers that come before the request's body has been read: refusals that the first parts of a form justify."""

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_SECONDS = 10.0
LINGER_BYTES = 64 << 20


class EarlyAnswers:
    """Sends such an answer at once, and lets the client finish sending within limits before the connection closes.

    Clients that look while they send (curl) stop there. For the others the rest must be read: a server that closes
    while its peer is sending makes the peer's kernel drop the answer (RFC 9112, section 9.6).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _announces_a_body(scope):
            await self.app(scope, receive, send)
            return
        unread = True

        async def receive_noting_the_end() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body", False))
            return message

        async def send_before_the_rest(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                MutableHeaders(scope=message)["Connection"] = "close"
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last and unread:
                await send({**message, "more_body": True})
                await _discard(receive_noting_the_end)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self.app(scope, receive_noting_the_end, send_before_the_rest)


async def _discard(receive: Receive) -> None:
    """Read on until the body ends, the client leaves, or a limit is reached."""
    discarded = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while discarded < LINGER_BYTES:
                message = await receive()
                discarded += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _announces_a_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
