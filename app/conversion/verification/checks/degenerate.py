"""Point 3 of docs/verification.md: inputs that random draws never hold."""

from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded, referenced, repeatable, unrefuted
from app.conversion.verification.probes import draw_degenerate, draw_zeros
from app.conversion.verification.reference import ModelFailed
from app.conversion.verification.side_by_side import disagreement, disagreement_beyond_numbers
from app.domain.report import Reason


@check(loaded, referenced, repeatable, unrefuted)
def degenerate(case: Case) -> None:
    """Point 3: rows of one value, which integer inputs admit and random draws never hold; and zeros."""
    subject = case.subject
    trials = [(probe, disagreement) for probe in draw_degenerate(subject.signature, subject.seed)]
    if (zeros := draw_zeros(subject.signature, subject.seed)) is not None:
        trials.append((zeros, disagreement_beyond_numbers))
    for probe, apart_on in trials:
        try:
            apart = apart_on(subject, case.artifact, probe)
        except ModelFailed:
            continue
        if apart is not None:
            case.find(Reason.parity, f"{probe.name} at {probe.sizes}: {apart}")
