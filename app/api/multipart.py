"""Reading multipart/form-data part by part while it arrives, in constant memory.

Starlette's own form parser spools each file to disk before a handler sees it; a checkpoint would then be written twice.
Here the bytes of a part are handed on as they come off the socket.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.bodies import collect
from app.api.filenames import safe_filename
from app.domain.errors import IncompleteUpload, InvalidRequest

MAX_PARTS = 64
MAX_NAME = 128
"""Bytes of a field name."""
MAX_TEXT = 256 << 10
"""Bytes of one text field; options with many input names fit many times over."""
MAX_EPILOGUE = 64 * 1024
"""Bytes that may follow the closing boundary (RFC 2046 lets them stand there, to be ignored)."""


class _End:
    """Marks the end of a part among its chunks."""


_END = _End()


@dataclass(frozen=True)
class Part:
    """One part; ``chunks`` must be read before the next part is asked for, and is skipped otherwise."""

    name: str
    filename: str | None
    chunks: AsyncIterator[bytes]

    async def text(self) -> str:
        """The whole part as UTF-8 text. Raises InvalidRequest beyond MAX_TEXT bytes or when it is not UTF-8."""
        refusal = InvalidRequest(f"Form field {self.name!r} is longer than {MAX_TEXT} bytes.")
        collected = await collect(self.chunks, MAX_TEXT, refusal)
        try:
            return collected.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"Form field {self.name!r} is not UTF-8: {error.reason}.") from None


@dataclass(frozen=True)
class _Head:
    name: str
    filename: str | None


class MultipartReader:
    """Drives python-multipart's push parser from an asynchronous stream and yields its parts."""

    def __init__(self, stream: AsyncIterator[bytes], content_type: str) -> None:
        kind, parameters = parse_options_header(content_type)
        boundary = parameters.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequest("A multipart body needs Content-Type: multipart/form-data with a boundary.")
        self._stream = stream
        self._events: deque[_Head | bytes | _End] = deque()
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._parts = 0
        self._complete = False
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise InvalidRequest(f"The multipart boundary cannot be used: {error}") from None

    async def parts(self) -> AsyncIterator[Part]:
        """Each part in the order sent. Raises InvalidRequest when malformed, IncompleteUpload when it ends early."""
        while True:
            event = await self._next()
            if event is None:
                return
            if isinstance(event, _Head):
                chunks = self._chunks()
                yield Part(event.name, event.filename, chunks)
                async for _ in chunks:
                    pass

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            event = await self._next()
            if not isinstance(event, bytes):
                return
            yield event

    async def _next(self) -> "_Head | bytes | _End | None":
        """The next event, fed from the stream; None after the closing boundary."""
        while not self._events:
            if self._complete:
                await self._skip_epilogue()
                return None
            chunk = await anext(self._stream, None)
            if chunk is None:
                raise IncompleteUpload("The multipart body ended before its closing boundary.")
            if chunk:
                self._feed(chunk)
        return self._events.popleft()

    def _feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest(f"The multipart body is malformed: {error}") from None

    async def _skip_epilogue(self) -> None:
        skipped = 0
        async for chunk in self._stream:
            skipped += len(chunk)
            if skipped > MAX_EPILOGUE:
                raise InvalidRequest(f"More than {MAX_EPILOGUE} bytes follow the closing multipart boundary.")

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"The multipart body has more than {MAX_PARTS} parts.")
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        kind, parameters = parse_options_header(self._disposition.decode("latin-1"))
        name = parameters.get(b"name")
        if kind != b"form-data" or name is None:
            raise InvalidRequest('Each part needs Content-Disposition: form-data; name="...".')
        if len(name) > MAX_NAME:
            raise InvalidRequest(f"A form field's name is longer than {MAX_NAME} bytes.")
        filename = parameters.get(b"filename")
        told = None if filename is None else filename.decode("utf-8", "replace")
        self._events.append(_Head(name.decode("utf-8", "replace"), safe_filename(told)))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _on_part_end(self) -> None:
        self._events.append(_END)

    def _on_end(self) -> None:
        self._complete = True
