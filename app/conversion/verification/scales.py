"""Outputs whose parts are of different sizes: boxes in pixels beside scores, hidden states with outlier channels.

One gate by the largest number hides what is wrong with the small ones, so indices of an axis at which all numbers are
much smaller than elsewhere are judged by a gate of their own as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

APART = 100.0
"""Times that the whole must be larger than a part which is judged on its own."""
FEWEST = 64
"""Numbers other than 0 that a part must have, so that eager shows how far it may be off."""
NEARLY = APART / 1.1
"""Times beyond which another evaluation may find a part apart: rounding moves no scale by a tenth."""
DEEPEST = 3
"""Parts of parts of parts."""


@dataclass(frozen=True)
class Part:
    """Where along which axes a part lies, from the outermost to the innermost."""

    places: tuple[tuple[int, Tensor], ...]
    """(axis, indices) one after the other."""

    def of(self, whole: Tensor) -> Tensor:
        """The part of an output of the shape that it was found in."""
        for axis, indices in self.places:
            whole = whole.index_select(axis, indices)
        return whole

    def __str__(self) -> str:
        return ", ".join(f"{len(indices)} of axis {axis}" for axis, indices in self.places)


def small_parts(y64: Tensor) -> Iterator[Part]:
    """Parts of an output, each much smaller in scale than the one before; none where one scale fits all."""
    places: tuple[tuple[int, Tensor], ...] = ()
    for _ in range(DEEPEST):
        smallest = max(_by_axis(y64.abs()), key=lambda place: y64.index_select(*place).count_nonzero(), default=None)
        if smallest is None or int(y64.index_select(*smallest).count_nonzero()) < FEWEST:
            return
        places = (*places, smallest)
        y64 = y64.index_select(*smallest)
        yield Part(places)


def may_have_small_parts(y32: Tensor) -> bool:
    """Whether the exact values of an output, of which these are near, may have parts to be judged on their own."""
    sizes = y32.abs()
    return any(y32.index_select(*place).numel() >= FEWEST for place in _by_axis(sizes, NEARLY))


def _by_axis(sizes: Tensor, apart: float = APART) -> Iterator[tuple[int, Tensor]]:
    """For each axis the indices at which all is much smaller than elsewhere."""
    for axis in range(sizes.dim() if sizes.numel() >= FEWEST else 0):
        others = [other for other in range(sizes.dim()) if other != axis]
        largest = sizes.amax(others) if others else sizes
        small = (largest * apart < largest.max()).nonzero().flatten()
        if small.numel():
            yield axis, small
