"""Geometry of the report's pictures: positions in percent of the width, so that the inline SVG needs no fixed size."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

LOWEST_DECADE = -5
HIGHEST_DECADE = 2
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
    """Where error / gate lies on the logarithmic axis, in percent; clamped to the axis, not finite at its end."""
    if not math.isfinite(ratio):
        return 100.0
    if ratio <= 0:
        return SLIVER
    decades = HIGHEST_DECADE - LOWEST_DECADE
    place = (math.log10(ratio) - LOWEST_DECADE) / decades * 100
    return min(100.0, max(SLIVER, place))


def gate_ticks() -> tuple[Tick, ...]:
    """One tick a decade, the gate itself at ratio 1."""
    superscripts = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return tuple(
        Tick(
            label="gate" if decade == 0 else f"10{str(decade).translate(superscripts)}",
            offset=gate_position(10.0**decade),
            is_gate=decade == 0,
        )
        for decade in range(LOWEST_DECADE + 1, HIGHEST_DECADE)
    )


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
