"""What the stages of a running conversion have cost so far, by its progress messages alone.

The child has a clock of its own, which is lost with it when it crashes, hangs or is refused; this one remains.
"""

import time

from app.domain.conversion import Stage


class StageSeconds:
    """Adds up the seconds between the messages that told of another stage."""

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._since = 0.0
        self._seconds: dict[str, float] = {}

    def heard(self, stage: Stage) -> None:
        """That stage runs now."""
        if stage is not self._stage:
            self._seconds = self.until_now()
            self._stage, self._since = stage, time.monotonic()

    def until_now(self) -> dict[str, float]:
        """Seconds by stage, those of the running stage so far included."""
        if self._stage is None:
            return {}
        name = self._stage.value
        return self._seconds | {name: self._seconds.get(name, 0.0) + time.monotonic() - self._since}
