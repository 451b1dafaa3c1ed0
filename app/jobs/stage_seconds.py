"""What the stages of a running conversion have cost so far, by its progress messages alone; and their spans.

The child has a clock of its own, which is lost with it when it crashes, hangs or is refused; this one remains.
"""

import time

from opentelemetry.trace import Span

from app.domain.conversion import Stage
from app.telemetry import tracer


class StageSeconds:
    """Adds up the seconds between the messages that told of another stage."""

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._since = 0.0
        self._seconds: dict[str, float] = {}
        self._span: Span | None = None

    def heard(self, stage: Stage) -> None:
        """That stage runs now."""
        if stage is not self._stage:
            self._seconds = self.until_now()
            self._stage, self._since = stage, time.monotonic()
            self.end_span()
            self._span = tracer.start_span(stage.value)

    def end_span(self) -> None:
        """No stage runs any more."""
        if self._span is not None:
            self._span.end()
            self._span = None

    def until_now(self) -> dict[str, float]:
        """Seconds by stage, those of the running stage so far included."""
        if self._stage is None:
            return {}
        name = self._stage.value
        return self._seconds | {name: self._seconds.get(name, 0.0) + time.monotonic() - self._since}
