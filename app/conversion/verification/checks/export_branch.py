"""Does the model behave differently while it is exported (docs/verification.md, point 3)?

A module can ask whether it is exported (``torch.onnx.is_in_onnx_export()``) and take another way, so that the artifact
is made of code that eager never runs. The other way may agree on ordinary inputs and not on others (a clamp that rarely
bites); so where the two ways use different operators or constants, the artifact is run on draws of many scales and both
signs.
"""

from collections import Counter

from app.architectures.module_state import state_kept
from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded, referenced, unrefuted
from app.conversion.verification.checks.extremes import stress
from app.conversion.verification.oracle import observed
from app.conversion.verification.promotion import Trace
from app.conversion.verification.reference import ModelFailed, Reference, cheapest
from app.conversion.verification.subject import Model
from app.domain.report import Reason


def differing_operators(model: Model, taken: Reference) -> Counter[str]:
    """Operators and constants that only one of the two ways uses, with how often; none when both are the same.

    The forward of ``taken`` is run again as the target's exporters run it, and what it reaches is compared.
    """
    exporting = model.reader.exporting
    if exporting is None or not taken.trace.operators:
        return Counter()
    try:
        with state_kept(model.module):
            theirs: Trace = exporting(observed)(model.module, model.signature, taken.probe.inputs)[1]
    except ModelFailed:
        return Counter()
    ours = taken.trace
    constants = ours.scalars ^ theirs.scalars
    differing = (ours.operators - theirs.operators) + (theirs.operators - ours.operators)
    return differing + Counter(f"constant {value:g}" for value in constants)


@check(loaded, referenced, unrefuted)
def export_branch(case: Case) -> None:
    """Point 3: where the model takes another way while it is exported, both must agree on inputs of many scales."""
    subject = case.subject
    if subject.reader.exporting is None:
        return
    taken = cheapest(case.references)
    if case.other_way is None:
        case.other_way = differing_operators(subject, taken)
    if not case.other_way:
        return
    stressed = stress(subject, case.artifact, case.references)
    failed = next((comparison.result for comparison in stressed if comparison.failure), None)
    listed = ", ".join(f"{name} × {count}" for name, count in case.other_way.most_common(5))
    detail = f"while it is exported, the model takes another way (operators that differ: {listed})"
    if failed is not None:
        case.find(Reason.parity, f"{detail}; {failed.probe}: {failed.reason}")
    else:
        case.find(Reason.export_branch, f"{detail}; both agree on inputs of all scales tried")
