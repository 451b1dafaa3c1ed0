"""Point 9 of docs/verification.md: the weight ledger (docs/ledger.md)."""

from app.conversion.verification.case import Case
from app.conversion.verification.check import check
from app.conversion.verification.ledger.ledger import ledger_of
from app.conversion.verification.subject import Subject
from app.domain.report import Ledger, Reason
from app.targets.artifact import MalformedFile


@check()
def ledger(case: Case) -> None:
    """Point 9: where every uploaded tensor went, and where every tensor of the artifact came from."""
    subject = case.subject
    try:
        case.ledger = _ledger(subject, certified=case.mode != "full")
    except MalformedFile as malformed:
        case.find(Reason.ledger, f"the artifact's tensors cannot be read: {malformed}")
        return
    if not case.ledger.passed:
        detail = "; ".join(case.ledger.problems[:3]) or "the books do not balance"
        case.find(Reason.ledger, detail)
    unused = [e.tensor for e in case.ledger.entries if e.ledger_class == "unused" and not _is_counter(e.tensor)]
    if unused:
        detail = f"{len(unused)} uploaded tensors are not used by the model: {', '.join(unused[:5])}"
        case.find(Reason.unused_tensors, detail)


def _ledger(subject: Subject, *, certified: bool) -> Ledger:
    return ledger_of(
        subject.reader.tensors(subject.artifact),
        subject.claims,
        uploaded=subject.uploaded,
        load=subject.load,
        module=subject.module,
        signature=subject.signature,
        certified=certified,
    )


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")
