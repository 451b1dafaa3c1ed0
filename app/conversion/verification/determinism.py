"""Does the model answer the same input twice in the same way, and does the artifact (verification.md, point 5)?

Twice the same bits is not asked: a difference within K · c · u · scale is rounding of another order. The model's own
distance from the oracle, which the gate allows for, is no measure here: of a stochastic module it is the noise itself.
More than rounding in eager is a stochastic module, which no artifact can be held against.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.conversion.verification.gate import C, K, farthest, unit_roundoff
from app.conversion.verification.oracle import eager
from app.conversion.verification.reference import Reference, is_inexact
from app.conversion.verification.runtime import ArtifactRefused, Runner
from app.domain.architecture import Signature


@dataclass(frozen=True)
class Repeat:
    """Whether a second run agreed with the first."""

    model: bool
    artifact: bool


def repeat(module: nn.Module, signature: Signature, runner: Runner, reference: Reference) -> Repeat:
    """Run model and artifact again on one probe. An artifact that does not run at all counts as repeatable."""
    again = eager(module, signature, reference.probe.inputs)
    first = reference.y32 if reference.kind == "fp64" else eager(module, signature, reference.probe.inputs)
    model = _agree(first, again)
    try:
        outputs = [runner.run(reference.probe.inputs) for _ in range(2)]
    except ArtifactRefused:
        return Repeat(model, artifact=True)
    return Repeat(model, _agree(*outputs))


def _agree(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(_same(value, second[name]) for name, value in first.items())


def _same(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    if not is_inexact(first):
        return torch.equal(first, second)
    finite = first.isfinite()
    if not torch.equal(finite, second.isfinite()):
        return False
    values, others = first[finite], second[finite]
    scale = float(values.abs().max()) if values.numel() else 0.0
    return farthest(values, others) <= K * C * unit_roundoff(first.dtype) * scale
