"""Point 9 of docs/verification.md: the weight ledger (docs/ledger.md)."""

from app.conversion.verification.case import Case
from app.conversion.verification.check import check
from app.conversion.verification.ledger.ledger import ledger_of
from app.domain.report import Reason
from app.targets.artifact import MalformedFile


@check()
def ledger(case: Case) -> None:
    """Point 9: where every uploaded tensor went, and where every tensor of the artifact came from."""
    subject = case.subject
    if case.as_loaded is not None:
        case.as_loaded.restore()  # the file holds the tables that it was captured with, not those of a later run
    try:
        case.ledger = ledger_of(
            subject.reader.tensors(subject.artifact),
            subject.claims,
            uploaded=subject.uploaded,
            load=subject.load,
            module=subject.module,
            signature=subject.signature,
            certified=case.mode != "full",
        )
    except MalformedFile as malformed:
        case.find(Reason.ledger, f"the artifact's tensors cannot be read: {malformed}")
        return
    if not case.ledger.passed:
        detail = "; ".join(case.ledger.problems[:3]) or "the books do not balance"
        case.find(Reason.ledger, detail)
    unused = [entry.tensor for entry in case.ledger.entries if entry.ledger_class == "unused"]
    unused = [name for name in unused if not name.endswith("num_batches_tracked")]  # a counter that only training reads
    if unused:
        detail = f"{len(unused)} uploaded tensors are not used by the model: {', '.join(unused[:5])}"
        case.find(Reason.unused_tensors, detail)
