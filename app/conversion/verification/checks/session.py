"""Point 11 of docs/verification.md: the artifact opened from its final bytes."""

from app.conversion.verification.case import Case
from app.conversion.verification.check import check
from app.conversion.verification.io_dtypes import opened
from app.domain.report import Reason
from app.targets.artifact import ArtifactRefused


@check()
def session(case: Case) -> None:
    """Point 11: in a session of its own, with weights laid out for long use where it will run often."""
    try:
        case.runner = opened(case.subject, threads=case.threads, repack=case.mode != "certified")
    except ArtifactRefused as refusal:
        case.find(Reason.runtime, f"the runtime refuses the artifact: {refusal}")
