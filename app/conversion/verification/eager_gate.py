"""The gate without the oracle: where artifact and eager lie so near to each other that the float64 gate must hold.

With δ = max|artifact − y32|, e = max|y32 − y64| and M = max|y64|:

    δ ≤ (K − 1) · c · u · max|y32| · (1 − 2 · c · u)   implies   max|artifact − y64| ≤ δ + e ≤ K · max(e, c · u · M)

For e ≥ c·u·M: max|y32| ≤ M + e ≤ e · (1 + c·u) / (c·u), so δ ≤ (K − 1) · e. Else max|y32| ≤ M · (1 + c·u), so
δ ≤ (K − 1) · c·u·M. In both cases (1 + c·u) · (1 − 2·c·u) ≤ 1. Everything else in the gate (noise, the unit of a
sigmoid) only widens it; what narrows it is left to the oracle: values that a mask filled in, parts of another scale,
jumps.
The float64 forward is most of the cost of a verification; here it is saved, and the verdict is the same.
"""

import torch
from torch import Tensor

from app.conversion.verification.reference import Reference
from app.conversion.verification.tolerance import (
    FILLING,
    FLIPPED,
    K,
    farthest,
    is_inexact,
    magnitude,
    may_have_small_parts,
    rounding,
)
from app.domain.report import OutputParity


def judged_by_eager(name: str, value: Tensor, reference: Reference) -> OutputParity | None:
    """The output against its gate, which is that of the inequality; None where only the oracle can tell.

    Shape and dtype agree already.
    """
    y32 = reference.y32[name]
    if not is_inexact(value):
        return _judged(name, value, 0.0, 0.0, float(value.numel())) if torch.equal(value, y32) else None
    if not bool(torch.isfinite(value).all()) or not bool(torch.isfinite(y32).all()):
        return None
    scale, least = magnitude(y32), rounding(y32.dtype, 1.0, reference.coarseness)
    bound = (K - 1) * least * scale * (1 - 2 * least)
    error = farthest(value, y32)
    # The very bits of eager are inside whatever the gate is, and a jump that eager makes is excused.
    if error == 0 or (error <= bound and not _is_narrowed(y32, reference)):
        return _judged(name, value, error, bound, scale)
    return None


def _is_narrowed(y32: Tensor, reference: Reference) -> bool:
    """Whether the gate may be narrower than its formula."""
    followed = reference.trace.operations > 0
    if not followed or (reference.trace.steps and int(FLIPPED * y32.numel()) > 0):
        return True
    if y32.numel() and not y32.is_complex() and float(y32.min()) <= FILLING:
        return True
    return not reference.probe.scaled and may_have_small_parts(y32)


def _judged(name: str, value: Tensor, error: float, gate: float, scale: float) -> OutputParity:
    return OutputParity(
        output=name,
        dtype=str(value.dtype).removeprefix("torch."),
        shape=tuple(value.shape),
        error=error,
        gate=gate,
        ratio=error / gate if error else 0.0,
        scale=scale,
        eager_error=0.0,
        passed=True,
        judged_by="eager",
    )
