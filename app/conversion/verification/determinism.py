"""Does the model answer the same input twice in the same way, and does the artifact (verification.md, point 5)?

Twice the same bits is not asked: a difference inside the honest error (the gate without its head-room) is rounding of
another order. More than that in eager is a stochastic module, which no artifact can be held against.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from app.conversion.verification.gate import farthest
from app.conversion.verification.oracle import Reference, eager, is_inexact
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
    model = _agree(first, again, reference)
    try:
        outputs = [runner.run(reference.probe.inputs) for _ in range(2)]
    except ArtifactRefused:
        return Repeat(model, artifact=True)
    named = [dict(zip(reference.y32, output.values(), strict=False)) for output in outputs]
    return Repeat(model, _agree(named[0], named[1], reference))


def _agree(first: dict[str, Tensor], second: dict[str, Tensor], reference: Reference) -> bool:
    for name, value in first.items():
        other = second[name]
        if value.shape != other.shape:
            return False
        if not is_inexact(value):
            if bool((value != other).any()):
                return False
        elif bool((value.isfinite() & other.isfinite()).all()) and (farthest(value, other) > reference.gate(name).base):
            return False
    return True
