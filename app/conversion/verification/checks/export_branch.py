"""Does the model behave differently while it is exported (docs/verification.md, point 3)?

A module can ask whether it is exported (``torch.onnx.is_in_onnx_export()``) and take another way, so that the artifact
is made of code that eager never runs. The other way may agree on ordinary inputs and not on others (a clamp that rarely
bites); so where the two ways use different operators or constants, the artifact is run on draws of many scales and both
signs.
"""

from collections import Counter

import torch
from torch import nn

from app.architectures.layouts import COUNTER
from app.architectures.module_state import state_kept
from app.conversion.verification.case import Case, OtherWay
from app.conversion.verification.check import check, loaded, referenced, unrefuted
from app.conversion.verification.checks.extremes import stress
from app.conversion.verification.oracle import observed
from app.conversion.verification.promotion import Trace
from app.conversion.verification.reference import ModelFailed, Reference, cheapest
from app.conversion.verification.subject import Model
from app.domain.report import Reason


def other_way(model: Model, taken: Reference) -> OtherWay:
    """The forward of ``taken`` is run again as the target's exporters run it, and what it reaches is compared."""
    exporting = model.reader.exporting
    if exporting is None or not taken.trace.operators:
        return OtherWay(Counter())
    try:
        with state_kept(model.module):
            theirs: Trace = exporting(observed)(model, taken.probe.inputs)[1]
    except ModelFailed:
        return OtherWay(Counter())
    ours = taken.trace
    constants = Counter(f"constant {value:g}" for value in ours.scalars ^ theirs.scalars)
    differing = _apart(ours.operators, theirs.operators) + constants
    steered = _apart(ours.operators - ours.on_integers, theirs.operators - theirs.on_integers) + constants
    of_floats = ours.integers_of_floats or theirs.integers_of_floats or _has_integers(model.module)
    return OtherWay(differing, on_integers=not steered and not of_floats)


def _apart(ours: Counter[str], theirs: Counter[str]) -> Counter[str]:
    return (ours - theirs) + (theirs - ours)


def _has_integers(module: nn.Module) -> bool:
    """Whether a checkpoint brings integers that a forward in eval mode may read."""
    return any(
        isinstance(value, torch.Tensor) and not value.is_floating_point() and not key.endswith(COUNTER)
        for key, value in module.state_dict().items()
    )


@check(loaded, referenced, unrefuted)
def export_branch(case: Case) -> None:
    """Point 3: where the model takes another way while it is exported, both must agree on inputs of many scales."""
    subject = case.subject
    if subject.reader.exporting is None:
        return
    taken = cheapest(case.references)
    if case.other_way is None:
        case.other_way = other_way(subject, taken)
    if not case.other_way.operators:
        return
    stressed = stress(subject, case.artifact, case.references)
    failed = next((comparison.result for comparison in stressed if comparison.failure), None)
    listed = ", ".join(f"{name} × {count}" for name, count in case.other_way.operators.most_common(5))
    detail = f"while it is exported, the model takes another way (operators that differ: {listed})"
    if failed is not None:
        case.find(Reason.parity, f"{detail}; {failed.probe}: {failed.reason}")
    else:
        reason = Reason.export_branch_on_integers if case.other_way.on_integers else Reason.export_branch
        case.find(reason, f"{detail}; both agree on inputs of all scales tried")
