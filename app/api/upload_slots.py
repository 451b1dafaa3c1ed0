"""How many uploads one client may send at the same time, and how full the disk may become."""

import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.requests import Request

from app.domain.errors import InsufficientStorage, RecastError

CHECKED_EVERY = 64 << 20
"""Bytes of an upload after which the free space is looked at again."""


class TooManyUploads(RecastError):
    code, status, title = "too_many_uploads", 429, "One client sends too many uploads at the same time"
    hint = "Send them one after the other."


class UploadSlots:
    """The uploads that this process receives. ``directory``: on the disk that they go to."""

    def __init__(self, directory: Path, most_per_client: int, min_free_bytes: int) -> None:
        self._directory = directory
        self._most = most_per_client
        self._min_free = min_free_bytes
        self._held: Counter[str] = Counter()

    @contextmanager
    def slot(self, request: Request) -> Iterator[None]:
        """A place for one upload. Raises TooManyUploads, InsufficientStorage."""
        client = request.client.host if request.client else "unknown"
        if self._held[client] >= self._most:
            raise TooManyUploads(f"{self._most} uploads of this client are under way.", retry_after=5)
        announced = request.headers.get("content-length", "")
        self.refuse_full_disk(int(announced) if announced.isdigit() and len(announced) < 19 else 0)
        self._held[client] += 1
        try:
            yield
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]

    async def watched(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same bytes. Raises InsufficientStorage as soon as the disk is too full for more."""
        unchecked = 0
        async for chunk in chunks:
            unchecked += len(chunk)
            if unchecked > CHECKED_EVERY:
                self.refuse_full_disk(0)
                unchecked = 0
            yield chunk

    def refuse_full_disk(self, needed: int) -> None:
        """Raises InsufficientStorage unless ``needed`` bytes fit and leave as much free as must stay free."""
        place = next(path for path in (self._directory, *self._directory.absolute().parents) if path.exists())
        free = shutil.disk_usage(place).free
        if free - needed < self._min_free:
            raise InsufficientStorage(
                f"{free} bytes are free, {needed} are to come and {self._min_free} must stay free.", retry_after=60
            )
