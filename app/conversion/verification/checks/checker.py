"""Point 11 of docs/verification.md: the file by its format's own rules."""

from app.conversion.verification.case import Case
from app.conversion.verification.check import check
from app.domain.report import Reason


@check()
def checker(case: Case) -> None:
    """Point 11: the format's own checker (onnx.checker with full shape inference) on the final bytes."""
    complaint = case.subject.reader.complaint(case.subject.artifact)
    if complaint is not None:
        case.find(Reason.checker, complaint[:600])
