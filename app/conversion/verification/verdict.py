"""The algebra of verdicts: findings in, one verdict out (verification.md, points 5 and 12).

Any ``fail`` makes a fail, else any ``inconclusive`` makes an inconclusive, else any note makes a pass with notes. One
exception: a stochastic module cannot be held against its artifact, so what rests on comparing values is not counted.
"""

from collections.abc import Iterable

from app.domain.reasons import REASONS
from app.domain.report import Finding, Reason, Verdict

_CAUSES = (Reason.non_finite, Reason.non_finite_weights)
"""What everything else follows from where it is found, so that it is said first."""


def settle(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that count, gravest first and causes before what follows from them, each reason's words once."""
    distinct = list(dict.fromkeys(findings))
    if any(finding.reason is Reason.nondeterministic for finding in distinct):
        distinct = [finding for finding in distinct if not REASONS[finding.reason].compared]
    gravity = {"fail": 0, "inconclusive": 1, "note": 2}
    return tuple(sorted(distinct, key=lambda finding: (gravity[finding.severity], finding.reason not in _CAUSES)))


def verdict_of(findings: Iterable[Finding], *, approximate: bool = False) -> Verdict:
    """The verdict over settled findings; ``approximate``: on an artifact that was held to a budget."""
    severities = {finding.severity for finding in findings}
    if "fail" in severities:
        return Verdict.fail
    if "inconclusive" in severities:
        return Verdict.inconclusive
    if approximate:
        return Verdict.within_budget
    return Verdict.pass_with_notes if severities else Verdict.passed
