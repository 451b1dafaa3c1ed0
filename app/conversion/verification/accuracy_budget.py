"""An artifact that approximates the model on one probe, held to the budget of its request instead of the gate.

What the budget is of are the model's own outputs on the same probe.
"""

import math

import torch
from torch import Tensor

from app.conversion.verification.comparison import (
    Comparison,
    named_outputs,
    refused,
    result_of,
    structure_mismatch,
)
from app.conversion.verification.reference import Reference
from app.conversion.verification.tolerance import UNBOUNDED, is_inexact
from app.domain.conversion import AccuracyBudget
from app.domain.report import OutputParity, Reason
from app.targets.artifact import ArtifactRefused, Runner


def held_to(budget: AccuracyBudget, runner: Runner, taken: Reference) -> Comparison:
    """Run the artifact on the reference's probe and hold every output to the budget."""
    try:
        outputs = named_outputs(runner, taken)
    except ArtifactRefused as refusal:
        return refused(taken, Reason.runtime, f"the runtime failed: {refusal}")
    mismatch = structure_mismatch(outputs, taken.y32)
    if mismatch is not None:
        return refused(taken, Reason.output_structure, mismatch)
    judged = tuple(_judged(budget, name, value, taken.y32[name]) for name, value in outputs.items())
    over = [f"{o.output}: {_db(o.snr_db)}, the budget asks for {budget.snr_db:g} dB" for o in judged if not o.passed]
    return Comparison(result_of(taken, judged, "; ".join(over) or None), Reason.over_budget if over else None, taken)


def _judged(budget: AccuracyBudget, name: str, value: Tensor, expected: Tensor) -> OutputParity:
    if not is_inexact(expected):
        agreeing = float((value == expected).double().mean()) if expected.numel() else 1.0
        return _parity(name, value, 0.0, 0.0, ratio=0.0, scale=0.0).model_copy(update={"top1": agreeing})
    difference = apart(value, expected)
    error, scale = rms(difference), rms(expected.detach())
    allowed = scale * 10 ** (-budget.snr_db / 20)
    finite = bool(torch.isfinite(value).all())
    ratio = 0.0 if finite and error == 0 else error / allowed if finite and allowed > 0 else UNBOUNDED
    judged = _parity(name, value, error if finite else UNBOUNDED, allowed, ratio=min(ratio, UNBOUNDED), scale=scale)
    snr = 20 * math.log10(scale / error) if finite and error > 0 and scale > 0 else None
    return judged.model_copy(update={"snr_db": snr, "top1": _top1(value, expected, allowed)})


def _parity(name: str, value: Tensor, error: float, gate: float, *, ratio: float, scale: float) -> OutputParity:
    return OutputParity(
        output=name,
        dtype=str(value.dtype).removeprefix("torch."),
        shape=tuple(value.shape),
        error=error,
        gate=gate,
        ratio=ratio,
        scale=scale,
        eager_error=0.0,
        passed=ratio <= 1,
        judged_by="budget",
    )


def _top1(value: Tensor, expected: Tensor, allowed: float) -> float | None:
    """The share of rows whose largest value is in the model's place, or where the model's own is as good as that."""
    if expected.is_complex() or expected.dim() < 2 or expected.shape[-1] < 2 or expected.numel() == 0:
        return None
    chosen = value.argmax(-1, keepdim=True)
    lost = expected.amax(-1, keepdim=True) - expected.gather(-1, chosen)
    return float((lost <= allowed).double().mean())


def apart(left: Tensor, right: Tensor) -> Tensor:
    """left - right, computed wide enough."""
    wide = torch.complex128 if left.is_complex() else torch.float64
    return left.to(wide) - right.to(wide)


def rms(value: Tensor) -> float:
    """The root mean square; 0 of nothing."""
    return float(value.abs().double().square().mean().sqrt()) if value.numel() else 0.0


def _db(snr: float | None) -> str:
    return "values that are not finite or where the model has none" if snr is None else f"SNR {snr:.1f} dB"
