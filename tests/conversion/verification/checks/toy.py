"""A check as one file, which tests/service/test_another_target.py puts among those of Recast."""

from app.conversion.verification.case import Case
from app.conversion.verification.check import check, referenced
from app.domain.report import Reason


@check(referenced)
def signs(case: Case) -> None:
    """Outputs that are above zero on every probe."""
    for name in case.references[0].y32:
        if all(bool((taken.y32[name] > 0).all()) for taken in case.references):
            case.find(Reason.one_sign, f"{name} is above zero on all probes")  # type: ignore[attr-defined]
