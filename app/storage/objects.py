"""The object store: bytes addressed by their sha256, written once, never seen half-written.

Two implementations of one interface: a directory (directory.py) and the object stores of clouds (cloud.py).
"""

import re
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

Chunk = bytes | memoryview
"""A piece of an object on its way out."""
SHA256 = re.compile("[0-9a-f]{64}")
BLOCK = 1 << 20
"""Bytes that are read, written or sent at once."""


class MissingObject(LookupError):
    """The store holds no object of that sha256."""


@dataclass(frozen=True)
class StoredObject:
    """What was stored: the sha256 (hexadecimal) and the number of bytes."""

    sha256: str
    bytes: int


class ObjectStore(Protocol):
    """Content-addressed objects. Every method may raise Unavailable; writing may raise InsufficientStorage."""

    def arriving(
        self, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None = None
    ) -> AbstractAsyncContextManager[StoredObject]:
        """Store what arrives, hashing on the way, in constant memory; durable after the block, whatever that raised.

        Hashing and writing go on while more arrives. The block begins when all has arrived; while it lasts, the object
        is flushed, and ``local`` gives it already. So rows may name it that are committed in the block, and nothing may
        be acknowledged before the block has ended without an error. What a process leaves that dies in the block
        counts only if its bytes still have the sha256.

        Whatever ``chunks`` raises is passed on, and then nothing is left behind.
        Raises PayloadTooLarge beyond ``limit`` bytes, EmptyFile, DigestMismatch.
        """

    async def receive(
        self, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None = None
    ) -> StoredObject:
        """As ``arriving``; durable when it returns."""

    async def settle(self, sha256: str) -> None:
        """Make the object durable that another may still be flushing; nothing where there is none. To be called before
        a promise is made that relies on an object which somebody else brought."""

    async def adopt(self, path: Path, sha256: str, filename: str | None = None) -> StoredObject:
        """Take over a finished local file, without a copy where possible; ``path`` is gone after.

        ``filename``: under which the store itself offers it to those who are sent there (``url``), where it can.

        The caller has found ``sha256`` out itself, from bytes that nobody can change any more.
        """

    def local(self, sha256: str) -> AbstractAsyncContextManager[Path]:
        """A local file with the object's bytes, to be read only, valid within the block. Raises MissingObject."""

    def stream(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncGenerator[Chunk]:
        """Bytes ``start`` up to ``end`` (excluded; None: to the end) in pieces of about BLOCK. Raises MissingObject."""

    async def size(self, sha256: str) -> int | None:
        """Bytes of the object; None when there is none."""

    async def collect(self, sha256: str, before: datetime) -> bool:
        """Remove the object unless it was written at or after ``before``, which would mean that somebody has just
        stored the same bytes again; gives whether it was removed."""

    def older_than(self, moment: datetime) -> AsyncGenerator[str]:
        """The sha256 of every object that was last written before ``moment``; for collecting what nobody refers to."""

    def url(self, sha256: str, expires_in: timedelta) -> str | None:
        """A presigned URL to read the object from the store itself; None where the store has no such thing."""

    async def check(self) -> None:
        """Write, read and remove a small object; raises Unavailable or InsufficientStorage when that fails."""


class OwnableStore(ObjectStore, Protocol):
    """A store that knows whose it is. An instance makes nothing in the store, which may be away: ``claim`` does."""

    owner_lasts: float
    """Seconds for which an owner that was read may be relied on."""

    async def owner(self) -> str | None:
        """The name of the database that this store belongs to; None when it bears none, or is not there."""

    async def claim(self, claimant: str, *, take_over: bool = False) -> str:
        """Make what is missing of the store; gives the name of its owner, which is the claimant from now on if it had
        none, or with ``take_over``."""

    async def tidy(self) -> None:
        """Put right what processes that died left in the store."""


def object_name(sha256: str) -> str:
    """Where an object lies in the store: ``sha256/ab/cdef...``. ValueError for what is no sha256 in hexadecimal."""
    if not SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256[:80]!r} is no sha256")
    return f"sha256/{sha256[:2]}/{sha256[2:]}"


def object_sha256(name: str) -> str | None:
    """The sha256 that ``object_name`` made this name from; None for any other name."""
    match name.split("/"):
        case [*_, "sha256", head, tail] if len(head) == 2 and SHA256.fullmatch(head + tail):
            return head + tail
    return None
