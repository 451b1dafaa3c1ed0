"""What ends a conversion whose artifact was refused."""

from app.conversion.packaging import _problem
from app.conversion.verification.verdict import settle
from app.domain.reasons import finding_of
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


def test_the_first_sentence_is_the_cause_and_every_reason_ends_in_a_full_stop():
    report = refused(Reason.non_finite, Reason.ledger, Reason.ledger)
    weights = "2 uploaded tensors hold NaN or infinity: head.weight, head.bias"
    note = Finding(reason=Reason.non_finite_weights, severity="note", detail=weights)
    ledger = Finding(reason=Reason.ledger, severity="fail", detail="another tensor is unaccounted")
    problem = _problem(report.model_copy(update={"findings": (*report.findings, ledger, note)}))
    assert problem is not None
    assert problem.code == "non_finite"
    assert problem.detail == f"{weights}. about non_finite. about ledger (and 2 more of this kind)."


def test_causes_are_said_before_what_follows_from_them():
    found = [
        finding_of(Reason.ledger, "a"),
        finding_of(Reason.not_strict, "b"),
        finding_of(Reason.non_finite, "c"),
        finding_of(Reason.non_finite_weights, "d"),
    ]
    assert [finding.detail for finding in settle(found)] == ["c", "a", "d", "b"]
