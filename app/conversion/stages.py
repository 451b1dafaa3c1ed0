"""The clock of a conversion: which stage runs, how far the whole is, and what each stage cost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.conversion.job import ProgressCallback
from app.domain.conversion import Stage
from app.domain.errors import RecastError

PROGRESS_AT_START = {
    Stage.inspect: 0.0,
    Stage.build: 0.05,
    Stage.load: 0.1,
    Stage.export: 0.15,
    Stage.verify: 0.6,
    Stage.package: 0.95,
    Stage.publish: 0.98,
}
"""Progress of the whole conversion when a stage begins: its usual share of a first conversion's time."""


class StageClock:
    """Tells the listener of each stage's start and adds up the seconds spent in each stage.

    Progress never goes back: a second export after a refused artifact keeps what was reached.
    """

    def __init__(self, listener: ProgressCallback) -> None:
        self._listener = listener
        self._reached = 0.0
        self.timings: dict[str, float] = {}

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Runs its body as that stage. A RecastError that leaves it carries the stage's name."""
        self._reached = max(self._reached, PROGRESS_AT_START[stage])
        self._listener(stage, self._reached)
        started = time.perf_counter()
        try:
            yield
        except RecastError as error:
            error.stage = error.stage or stage.value
            raise
        finally:
            self.timings[stage.value] = self.timings.get(stage.value, 0.0) + time.perf_counter() - started
