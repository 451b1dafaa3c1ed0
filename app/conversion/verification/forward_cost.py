"""What a forward may cost that is run for evidence beyond the nominal probes.

A model's cost may grow with the values of its inputs: roi_align samples boxes by their size, a speech model predicts
how long its output is. On inputs thousands of times as large a tiny net then takes minutes and gigabytes, which shows
nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import log

LEAST_SECONDS = 1.0
"""Of processor time that a forward may always take."""
TIMES = 20.0
"""Times the nominal forward that one may take beyond that."""
LEAST_BYTES = 1 << 29
"""Of memory that a forward may always take."""
GROWTH = 2.0
"""Growth of cost between two scales from which on it is looked ahead; below, it is the clock's."""


def processor_seconds(call: Callable[[], object]) -> float:
    """What a call takes of this process's processors; another process's load does not count."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


def allowed(nominal: float) -> float:
    """Seconds of processor time that a forward may take where the nominal one takes so many."""
    return max(LEAST_SECONDS, TIMES * nominal)


@dataclass
class CostByScale:
    """What forwards take at growing scales of one probe. ``nominal`` seconds are those at scale 1."""

    nominal: float
    scale: float = 1.0
    seconds: float = 0.0
    growth: float = 1.0
    """By which the cost was multiplied for each doubling of the scale, between the last two that were measured."""

    def __post_init__(self) -> None:
        self.seconds = self.nominal

    def measured(self, scale: float, seconds: float) -> None:
        """Take over what a forward at a larger scale cost."""
        if scale > self.scale:
            times = seconds / max(self.seconds, 1e-4)
            self.growth = times ** (1 / log(scale / self.scale, 2)) if times > GROWTH else 1.0
            self.scale, self.seconds = scale, seconds

    def refuses(self, scale: float) -> str | None:
        """Why a forward at that scale must be expected to cost too much, or None."""
        expected = self.seconds * self.growth ** max(log(max(scale, self.scale) / self.scale, 2), 0.0)
        if expected <= allowed(self.nominal):
            return None
        return f"a forward would take about {expected:.2g} s at {scale:g} times the scale, against {self.nominal:.2g} s"
