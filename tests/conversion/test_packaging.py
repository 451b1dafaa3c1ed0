"""What ends a conversion whose artifact was refused."""

from app.conversion.packaging import _problem
from app.domain.report import Finding, GateConstants, Reason, Verdict, VerificationReport


def refused(*reasons: Reason) -> VerificationReport:
    return VerificationReport(
        verdict=Verdict.fail,
        findings=tuple(Finding(reason=reason, severity="fail", detail=f"about {reason.value}") for reason in reasons),
        mode="full",
        gate=GateConstants(K=8, c=4, u=2**-24),
        oracle="fp64",
    )


def test_the_first_reason_gives_the_code_and_all_are_told():
    problem = _problem(refused(Reason.parity, Reason.dims))
    assert problem is not None
    assert problem.code == "parity_failed"
    assert problem.extra["reasons"] == ["parity", "dims"]
    assert "about dims" in problem.detail


def test_a_ledger_that_does_not_add_up_has_its_own_code():
    problem = _problem(refused(Reason.ledger))
    assert problem is not None
    assert problem.code == "ledger_failed"
