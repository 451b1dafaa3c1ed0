"""Point 3 of docs/verification.md: inputs that random draws never hold."""

from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded, referenced, repeatable, unrefuted
from app.conversion.verification.probes import draw_degenerate
from app.conversion.verification.reference import ModelFailed
from app.conversion.verification.side_by_side import disagreement
from app.domain.report import Reason


@check(loaded, referenced, repeatable, unrefuted)
def degenerate(case: Case) -> None:
    """Point 3: rows of one value, which integer inputs admit and random draws never hold."""
    subject = case.subject
    for probe in draw_degenerate(subject.signature, subject.seed):
        try:
            apart = disagreement(subject, case.artifact, probe)
        except ModelFailed:
            continue
        if apart is not None:
            case.find(Reason.parity, f"{probe.name} at {probe.sizes}: {apart}")
