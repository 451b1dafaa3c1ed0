"""Points 1 and 3 of docs/verification.md: what the model alone tells, made elsewhere or now."""

from app.conversion.verification.case import Case, unhurried
from app.conversion.verification.check import check
from app.conversion.verification.eager_side import certified_probes, full_probes, take_references
from app.domain.report import Verdict
from app.processes import give_back_memory


@check(timed=False)
def reference(case: Case) -> None:
    """Points 1 and 3 on the probes of the mode."""
    subject = case.subject
    if case.mode == "certified":
        certificate = subject.certificate
        # The fused kernels depart by their structure: where they did not for the certified graph, they do not now.
        settled = certificate is not None and certificate.verdict is Verdict.passed
        case.adopt(take_references(subject, certified_probes(subject), unhurried, fused=not settled))
        give_back_memory()  # of the float64 forward, before the session takes as much again
    else:
        case.adopt(case.eager() if case.eager else take_references(subject, full_probes(subject), unhurried))
