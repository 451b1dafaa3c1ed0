"""A file written once from front to back while another thread hashes what was written."""

import hashlib
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

CHUNK = 1 << 20
"""Bytes written and hashed as one piece: small enough that the hash still finds them in the processor's cache."""

SMALL = CHUNK // 16
"""Shorter pieces are gathered first, because handing one over costs more than hashing it."""

AHEAD = 8
"""Pieces by which writing may run ahead of hashing. They keep their tensors alive, so this bounds memory."""


def flush_early(path: Path) -> None:
    """Have the kernel write the file to disk while other work goes on, so that publishing need not wait for it."""

    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # here: by the time the thread runs, the file may have moved

    def flush() -> None:
        try:
            os.fsync(file)
        finally:
            os.close(file)

    threading.Thread(target=flush, name="flush", daemon=True).start()


class HashedFile:
    """Write-only file with the sha256 of its content. hashlib and os.write release the interpreter lock, so both run.

    On an error inside the ``with`` block, or while ending it, the file is removed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._hashing: deque[Future[None]] = deque()
        self._gathered = bytearray()
        self.bytes = 0

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = False
        try:
            if kind is None:
                self._write_gathered()
                self._wait_for_hash(0)
                finished = True
        finally:
            self._hasher.shutdown()
            os.close(self._file)
            if not finished:
                self._path.unlink(missing_ok=True)

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``, whose memory must not change until the file is closed."""
        self.bytes += len(data)
        if len(data) < SMALL:
            self._gathered += data
            if len(self._gathered) >= CHUNK:
                self._write_gathered()
            return
        self._write_gathered()
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            self._write_piece(view[start : start + CHUNK])

    def sha256(self) -> str:
        """Hexadecimal digest of the whole content; after the ``with`` block."""
        return self._hash.hexdigest()

    def _write_gathered(self) -> None:
        if self._gathered:
            self._write_piece(memoryview(bytes(self._gathered)))
            self._gathered.clear()

    def _write_piece(self, piece: memoryview) -> None:
        self._wait_for_hash(AHEAD - 1)
        self._hashing.append(self._hasher.submit(self._hash.update, piece))
        while piece:
            piece = piece[os.write(self._file, piece) :]

    def _wait_for_hash(self, allowed: int) -> None:
        while len(self._hashing) > allowed:
            self._hashing.popleft().result()
