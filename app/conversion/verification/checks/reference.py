"""Points 1 and 3 of docs/verification.md: what the model alone tells, made elsewhere or now."""

from app.conversion.verification.case import Case, unhurried
from app.conversion.verification.check import check
from app.conversion.verification.eager_side import certified_probes, full_probes, take_references
from app.conversion.verification.subject import Subject
from app.domain.report import Verdict
from app.processes import give_back_memory


@check(timed=False)
def reference(case: Case) -> None:
    """Points 1 and 3 on the probes of the mode."""
    subject = case.subject
    if case.mode == "certified":
        case.adopt(take_references(subject, certified_probes(subject), unhurried, fused=_may_depart(subject)))
        give_back_memory()  # of the float64 forward, before the session takes as much again
    else:
        case.adopt(case.eager() if case.eager else take_references(subject, full_probes(subject), unhurried))


def _may_depart(subject: Subject) -> bool:
    """Whether torch's fused attention may give other values here though it did not on the draws of the certificate.

    It departs by its structure, and where there is padding: the client's own probes may hold some.
    """
    certificate = subject.certificate
    return certificate is None or certificate.verdict is not Verdict.passed or subject.client_probes is not None
