"""How far an artifact's output may lie from the float64 oracle: the gate, and which parts of it have their own.

    max|artifact − y64| ≤ K · max( max|y32 − y64|, c · u · max|y64|, u · unit ),  K = 8, c = 4

The first term is the rounding that the model itself shows in float32, the second the least that any float32 evaluation
of an output of that size must be allowed; u is the unit roundoff of the artifact's dtype. K and c come from a study of
8 nets and 276 artifacts: onnxruntime never exceeded 1.35 × the base, so 8 leaves six-fold head-room
(docs/verification.md).
Fixed tolerances are wrong both ways: an output of scale 310 has an honest error of 2e-4.

One gate by the largest number hides what is wrong with small ones (boxes in pixels beside scores, hidden states with
outlier channels), so indices of an axis at which all numbers are much smaller than elsewhere are judged by a gate of
their own as well.

``unit`` is 1 for what a sigmoid gave and 0 else: a sigmoid is computed in numbers of size 1 even where it is small
(onnxruntime's is off by up to 5e-8 at 1e-4, which is 5e-4 of the output's own size).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from app.domain.report import GateConstants, OutputParity

K = 8.0
C = 4.0
UNIT_ROUNDOFF = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
FILLING = -1e4
"""Constants at or below it are what models put in place of scores that shall not count: -1e4, -1e9, finfo.min."""
FLIPPED = 0.01
"""Share of an output's elements that may lie so near to a step that rounding decides; a faulty channel has more."""
FEW = 64.0
"""Elements that may do so where that share is fewer, of sixteen times as many: two rows of a detector that change
places differ in eight numbers of its boxes."""
HIGH = 64.0
"""Times the error of all others from which an error is a jump."""
UNBOUNDED = 1e30
"""Stands in a report for an error or ratio that is not finite: JSON has no infinity."""
APART = 100.0
"""Times that the whole must be larger than a part which is judged on its own."""
FEWEST = 64
"""Numbers other than 0 that a part must have, so that eager shows how far it may be off."""
NEARLY = APART / 1.1
"""Times beyond which another evaluation may find a part apart: rounding moves no scale by a tenth."""
DEEPEST = 3
"""Parts of parts of parts."""


def constants(dtype: torch.dtype = torch.float32, coarseness: float = 1.0) -> GateConstants:
    """The gate's constants as the report states them."""
    return GateConstants(K=K, c=C, u=unit_roundoff(dtype) * coarseness)


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the spacing of 1.0 in the dtype; complex dtypes count as their parts."""
    return UNIT_ROUNDOFF[dtype.to_real() if dtype.is_complex else dtype]


def rounding(dtype: torch.dtype, scale: float, coarseness: float = 1.0) -> float:
    """c · u · scale: the error that any evaluation of an output of that size must be allowed, without head-room."""
    return C * unit_roundoff(dtype) * coarseness * scale


def is_inexact(value: Tensor) -> bool:
    """True for float and complex tensors, which are compared within a gate; others are compared exactly."""
    return value.is_floating_point() or value.is_complex()


def magnitude(value: Tensor) -> float:
    """max|value|; 0 for an empty tensor."""
    return float(value.abs().max()) if value.numel() else 0.0


def farthest(left: Tensor, right: Tensor) -> float:
    """max|left − right| computed in float64; 0 for empty tensors, nan if any difference is not a number."""
    return float(distances(left, right).max()) if left.numel() else 0.0


def distances(left: Tensor, right: Tensor) -> Tensor:
    """|left − right| element by element, computed in float64."""
    wide = torch.complex128 if left.is_complex() else torch.float64
    return (left.to(wide) - right.to(wide)).abs()


@dataclass(frozen=True)
class Gate:
    """The gate of one output on one probe, in the output's own units."""

    width: float
    scale: float
    eager_error: float

    def widened(self, coarseness: float) -> "Gate":
        """The gate of an evaluation that rounds so many times as coarsely: both of its terms are in proportion to u."""
        return replace(self, width=self.width * coarseness)

    @property
    def base(self) -> float:
        """The error that is honest: the gate without its head-room."""
        return self.width / K

    def ratio(self, error: float) -> float:
        """error / gate; 0 when both are 0, UNBOUNDED when the error is not finite or the gate is 0."""
        if error == 0:
            return 0.0
        if not error < UNBOUNDED or self.width == 0:
            return UNBOUNDED
        return min(error / self.width, UNBOUNDED)


def gate_of(y32: Tensor, y64: Tensor, *, noise: float = 0.0, unit: float = 0.0, jumps: bool = False) -> Gate:
    """The gate for an output that eager computes as y32 in its own dtype and the oracle as y64.

    ``noise``: an error of eager that was measured otherwise, where y32 has too few elements to show it.
    ``jumps``: the output may be one that jumps, and the height of a jump is no rounding.
    """
    scale = _scale(y32, y64)
    least = max(rounding(y32.dtype, scale), unit_roundoff(y32.dtype) * unit)
    eager_error = max(_without_jumps(y32, y64, least) if jumps else farthest(y32, y64), noise)
    return Gate(K * max(eager_error, least), scale, eager_error)


def _without_jumps(y32: Tensor, y64: Tensor, least: float) -> float:
    """The greatest error of eager but for the few elements, if any, whose error is of another order than all others."""
    greatest = farthest(y32, y64)
    few = int(FLIPPED * y32.numel())
    if few == 0 or not greatest > HIGH * least:
        return greatest
    rest = float(distances(y32, y64).flatten().kthvalue(y32.numel() - few).values)
    return rest if greatest > HIGH * rest else greatest


def _scale(y32: Tensor, y64: Tensor) -> float:
    """max|y64| over what is computed: scores that a mask replaced by one huge constant would hide all others."""
    if y64.numel() == 0 or y64.is_complex() or not float(y64.min()) <= FILLING:
        return magnitude(y64)
    filled = (y64 == y64.min()) & (y32 == y64)
    computed = y64[~filled] if int(filled.sum()) > 1 else y64
    return magnitude(computed)


def judge(name: str, artifact: Tensor, gate: Gate, y64: Tensor) -> OutputParity:
    """One float or complex output against its gate. Shapes and dtypes agree already."""
    error = farthest(artifact, y64)
    finite = bool(torch.isfinite(artifact).all())
    ratio = gate.ratio(error) if finite else UNBOUNDED
    return OutputParity(
        output=name,
        dtype=str(artifact.dtype).removeprefix("torch."),
        shape=tuple(artifact.shape),
        error=error if finite and error < UNBOUNDED else UNBOUNDED,
        gate=_bounded(gate.width),
        ratio=ratio,
        scale=_bounded(gate.scale),
        eager_error=_bounded(gate.eager_error),
        passed=ratio <= 1,
    )


def _bounded(value: float) -> float:
    return value if value < UNBOUNDED else UNBOUNDED


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
