"""Geometry of the report's pictures: positions in percent of the width, so that the inline SVG needs no fixed size."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

GATE_AT = 70.0
"""Percent of the width at which the gate stands."""
FARTHEST = 100.0
"""Times the gate at which the axis ends."""
WEAKEST_EFFECT, STRONGEST_EFFECT = 1e-2, 1e6
"""Ends of the axis of a perturbation's effect, in gates."""
SLIVER = 0.6
"""Width in percent below which a bar could not be seen."""


@dataclass(frozen=True)
class Segment:
    """A piece of a stacked bar. ``offset`` and ``width`` in percent."""

    label: str
    value: float
    offset: float
    width: float


@dataclass(frozen=True)
class Tick:
    label: str
    offset: float
    is_gate: bool


def gate_position(ratio: float) -> float:
    """Where error / gate lies on its axis, in percent.

    Linear from 0 to the gate, so that half of the gate looks like half; beyond it logarithmic up to FARTHEST,
    where what is farther or not finite ends.
    """
    if not math.isfinite(ratio):
        return 100.0
    if ratio <= 1:
        return max(SLIVER, ratio * GATE_AT)
    beyond = math.log10(min(ratio, FARTHEST)) / math.log10(FARTHEST)
    return GATE_AT + beyond * (100.0 - GATE_AT)


def gate_ticks() -> tuple[Tick, ...]:
    """Ticks of that axis: parts of the gate, the gate itself, and multiples of it."""
    labels = {0.25: "¼", 0.5: "½", 0.75: "¾", 1.0: "gate", 10.0: "10×", FARTHEST: "100×"}
    return tuple(Tick(label, gate_position(ratio), ratio == 1.0) for ratio, label in labels.items())


def effect_position(ratio: float) -> float:
    """Where a perturbation's effect / gate lies on its axis, in percent: logarithmic, for effects span decades."""
    if math.isnan(ratio) or ratio >= STRONGEST_EFFECT:
        return 100.0
    decades = math.log10(max(ratio, WEAKEST_EFFECT) / WEAKEST_EFFECT)
    return max(SLIVER, decades / math.log10(STRONGEST_EFFECT / WEAKEST_EFFECT) * 100.0)


def stacked(values: Mapping[str, float]) -> tuple[Segment, ...]:
    """Parts of a whole side by side; zero parts are left out."""
    whole = sum(values.values())
    segments: list[Segment] = []
    offset = 0.0
    for label, value in values.items():
        if value <= 0 or whole <= 0:
            continue
        width = value / whole * 100
        segments.append(Segment(label, value, offset, width))
        offset += width
    return tuple(segments)


def proportion(value: float, largest: float) -> float:
    """A linear bar's width in percent."""
    return max(SLIVER, value / largest * 100) if largest > 0 else SLIVER
