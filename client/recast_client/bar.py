"""A progress bar of text, which a terminal and a notebook's cell show alike."""

import sys
from typing import TextIO

from recast_client.models import Conversion

WIDTH = 30
LONGEST = 24
"""Characters of what is shown beside the bar."""


class Bar:
    """First the upload, then the stages of the conversion; each in a line that is written again and again."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = ""

    def sent(self, done: int, total: int) -> None:
        """Bytes sent, and those in all."""
        self._show("upload", done / total if total else 1.0)

    def watched(self, conversion: Conversion) -> None:
        """The conversion as it is now."""
        self._show(conversion.stage or conversion.state, 1.0 if conversion.finished else conversion.progress)
        if conversion.finished:
            self._stream.write(
                f"\r{conversion.id}: {conversion.verdict or conversion.state}".ljust(len(self._shown)) + "\n"
            )
            self._stream.flush()

    def _show(self, what: str, share: float) -> None:
        full = round(WIDTH * share)
        line = f"\r{what[:LONGEST]:<{LONGEST}} [{'#' * full}{' ' * (WIDTH - full)}] {share:4.0%}"
        if line != self._shown:
            self._stream.write(line)
            self._stream.flush()
            self._shown = line
