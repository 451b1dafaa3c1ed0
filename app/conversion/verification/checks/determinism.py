"""Does the model answer the same input twice in the same way, and does the artifact (verification.md, point 5)?

Twice the same bits is not asked: a difference within K · c · u · scale is rounding of another order. The model's own
distance from the oracle, which the gate allows for, is no measure here: of a stochastic module it is the noise itself.
More than rounding in eager is a module that draws, or that remembers its calls, which no artifact can be held against.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from app.architectures.calling import EagerModel
from app.architectures.module_state import ModuleState
from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded, referenced
from app.conversion.verification.oracle import eager
from app.conversion.verification.reference import Reference, smallest
from app.conversion.verification.tolerance import K, farthest, is_inexact, magnitude, rounding
from app.domain.report import Reason
from app.targets.artifact import ArtifactRefused, Runner


def model_repeats(model: EagerModel, taken: Reference, as_loaded: ModuleState) -> bool:
    """Whether the model, called as often as it was, answers a probe as it does in the state in which it was loaded.

    Both are run by the same number of threads: deep nets differ by more than rounding of another order between one
    thread and two (resnet50: 3e-6 of the output).
    """
    inputs = taken.probe.inputs
    again = eager(model, inputs)
    as_loaded.restore()
    return agree(again, eager(model, inputs))


def artifact_repeats(runner: Runner, inputs: Mapping[str, Tensor]) -> bool:
    """Whether the artifact agrees with itself. One that does not run at all counts as such: parity says so."""
    try:
        return agree(runner.run(inputs), runner.run(inputs))
    except ArtifactRefused:
        return True


def agree(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two evaluations have the same outputs, up to rounding of another order."""
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
    return farthest(values, others) <= K * rounding(first.dtype, magnitude(values))


@check(loaded, referenced)
def determinism(case: Case) -> None:
    """Point 5: the same input twice."""
    subject = case.subject
    taken = smallest(case.references)
    if case.model_repeats is None and case.as_loaded is not None:
        case.model_repeats = model_repeats(subject, taken, case.as_loaded)
    case.artifact_repeats = artifact_repeats(case.artifact, taken.probe.inputs)
    if case.model_repeats is False:
        detail = (
            "the model itself answers the same input differently each time, or as it was called before, so nothing can "
            "be compared with it"
        )
        case.find(Reason.nondeterministic, detail)
    elif not case.artifact_repeats:
        case.find(Reason.parity, "the artifact answers the same input differently each time")
