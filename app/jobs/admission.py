"""Memory before speed: a conversion that would not fit beside the running ones waits for them.

One that would not fit alone is refused at once, because it would end half-way, having kept all others waiting.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from app.domain.conversion import Stage
from app.domain.errors import MemoryEstimateExceeded

BASE = 800 << 20
"""Bytes that a conversion needs whatever its weights: exporters, a session, probes, in a first conversion in two
processes at once (measured on small nets)."""
PER_CHECKPOINT_BYTE = 4.0
"""Eager module, artifact, the runtime's own copy, and room for activations and the largest layer in fp64."""
PER_SAMPLE_ELEMENT = 64
"""Bytes for each element of an example input that the client asked for: it is made in two precisions, for the export
and for each of some probes. What a model makes of it nobody knows before it is built: the child's limit bounds that."""
SHARE = 0.8
"""Of the machine's memory that conversions may use; the rest is for the service, the database and the page cache."""


PROCESSOR_BASE: Mapping[Stage, float] = {Stage.inspect: 30.0, Stage.build: 300.0, Stage.load: 300.0}
"""Seconds of processor time of the stages whose work a stranger's file and options decide. A file of as many tensors as
are read at most, 100,000, is inspected in 8 s."""
BYTES_PER_SECOND = 10 << 20
"""Bytes of a checkpoint for which those stages get a second more: hashing takes a two-hundredth of it."""


def processor_seconds(checkpoint_bytes: int) -> dict[str, float]:
    """What each bounded stage of a job may take of the processor, by its name."""
    return {stage.value: base + checkpoint_bytes / BYTES_PER_SECOND for stage, base in PROCESSOR_BASE.items()}


def estimate(checkpoint_bytes: int, sample_elements: int = 0) -> int:
    """Bytes of memory that a conversion may need: of so many bytes of weights, at an input of so many elements."""
    return BASE + int(PER_CHECKPOINT_BYTE * checkpoint_bytes) + PER_SAMPLE_ELEMENT * sample_elements


def available_memory() -> int:
    """Bytes that this machine, or the container (cgroup v2) that this process runs in, has."""
    total = int(psutil.virtual_memory().total)
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        return min(total, int(text))
    return total


def default_budget() -> int:
    """Bytes that all conversions of a worker may use together when no setting says so."""
    return int(SHARE * available_memory())


class Admission:
    """A budget in bytes, given out in the order of asking, so that a large job is not starved by small ones.

    ``at_once``: jobs that run together. Each may have its share of the budget without asking for it, so that what a
    job is admitted with can be its limit, and the limits of all together are never more than the budget.
    """

    def __init__(self, budget: int, at_once: int | None = None) -> None:
        self._budget = budget
        self.share = budget // at_once if at_once else 0
        self._used = 0
        self.running = 0
        """How many hold a part of the budget."""
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    def wanted_for(self, checkpoint_bytes: int, sample_elements: int = 0) -> int:
        """Bytes to admit a conversion with: what it is estimated to need, and at least its share.

        Raises MemoryEstimateExceeded with the arithmetic when they are more than the whole budget.
        """
        wanted = estimate(checkpoint_bytes, sample_elements)
        if wanted > self._budget:
            sample = f" + {PER_SAMPLE_ELEMENT} × {sample_elements:,}" if sample_elements else ""
            at = f" at an input of {sample_elements:,} elements" if sample_elements else ""
            raise MemoryEstimateExceeded(
                f"A checkpoint of {checkpoint_bytes:,} bytes{at} is estimated to need {BASE:,} + "
                f"{PER_CHECKPOINT_BYTE:g} × {checkpoint_bytes:,}{sample} = {wanted:,} bytes of memory; conversions may "
                f"use {self._budget:,} here.",
                checkpoint_bytes=checkpoint_bytes,
                estimated_bytes=wanted,
                budget_bytes=self._budget,
            )
        return max(wanted, self.share)

    @asynccontextmanager
    async def admit(self, wanted: int) -> AsyncIterator[None]:
        """Hold ``wanted`` bytes, at most the whole budget, for the block."""
        assert wanted <= self._budget
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((wanted, place))
        self._serve()
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                with suppress(ValueError):
                    self._line.remove((wanted, place))
            else:
                self._used -= wanted
            self._serve()
            raise
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._used -= wanted
            self._serve()

    def _serve(self) -> None:
        while self._line and self._used + self._line[0][0] <= self._budget:
            wanted, place = self._line.popleft()
            if not place.cancelled():
                self._used += wanted
                place.set_result(None)
