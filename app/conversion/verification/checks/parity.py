"""Point 2 of docs/verification.md: every output of every probe inside its gate."""

from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded
from app.conversion.verification.comparison import compare, failures, ties
from app.conversion.verification.eager_side import skipped_probe, unfit_at_scale


@check(loaded)
def parity(case: Case) -> None:
    """Point 2: every output of every probe inside its gate."""
    subject = case.subject
    for taken in list(case.references):
        near = not taken.oracle.asked
        compared = compare(case.artifact, taken)
        near = near and not taken.oracle.asked and compared.failure is None
        unfit = None if near else unfit_at_scale(subject, taken)
        if unfit is None:
            case.compared.append(compared)
        else:
            case.references.remove(taken)
            case.skipped.append(skipped_probe(taken.probe, unfit))
    case.findings += [*failures(case.compared), *ties(case.compared)]
