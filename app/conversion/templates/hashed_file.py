"""A file written once from front to back while another thread hashes what was written."""

import hashlib
import os
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

CHUNK = 1 << 20
"""Bytes written and hashed as one piece: small enough that the hash still finds them in the processor's cache."""

QUEUED = 8
"""Pieces that may wait for the hash. They keep their tensors alive, so this bounds memory."""


class HashedFile:
    """Write-only file with the sha256 of its content. hashlib and os.write release the interpreter lock, so both run.

    On an error inside the ``with`` block the file is removed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._pieces: queue.Queue[memoryview | None] = queue.Queue(QUEUED)
        self._small = bytearray()
        self.bytes = 0

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._hasher = threading.Thread(target=self._hash_pieces, name="sha256", daemon=True)
        self._hasher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush_small()
        finally:
            self._pieces.put(None)
            self._hasher.join()
            os.close(self._file)
            if kind is not None:
                self._path.unlink(missing_ok=True)

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``, whose memory must not change until the file is closed."""
        self.bytes += len(data)
        if len(data) < CHUNK // 16:
            self._small += data
            if len(self._small) >= CHUNK:
                self._flush_small()
            return
        self._flush_small()
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            self._write_piece(view[start : start + CHUNK])

    def sha256(self) -> str:
        """Hexadecimal digest of the whole content; after the ``with`` block."""
        return self._hash.hexdigest()

    def _flush_small(self) -> None:
        if self._small:
            self._write_piece(memoryview(bytes(self._small)))
            self._small.clear()

    def _write_piece(self, piece: memoryview) -> None:
        self._pieces.put(piece)
        while piece:
            piece = piece[os.write(self._file, piece) :]

    def _hash_pieces(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._hash.update(piece)
