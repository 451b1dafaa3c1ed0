"""Verify one artifact against the module it was made from: the points of docs/verification.md, in order.

``full`` proves graph and weights. ``certified`` is for an artifact of a graph that was proved before, with other
weights: one probe at sizes drawn at random, the mode and attribute audits, and the weight ledger. ``budget`` is for an
approximation of an artifact that was proved before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from app.conversion.decisions.search import Decisions
from app.conversion.verification.case import SMALL_BYTES, Case, EagerSide
from app.conversion.verification.check import Check
from app.conversion.verification.checks.audit import audit
from app.conversion.verification.checks.budget import budget, movement
from app.conversion.verification.checks.checker import checker
from app.conversion.verification.checks.decisions import decisions
from app.conversion.verification.checks.degenerate import degenerate
from app.conversion.verification.checks.detection import detection
from app.conversion.verification.checks.determinism import determinism
from app.conversion.verification.checks.dims import dims
from app.conversion.verification.checks.export_branch import export_branch
from app.conversion.verification.checks.extremes import extremes
from app.conversion.verification.checks.history import finite_weights, history
from app.conversion.verification.checks.latency import latency
from app.conversion.verification.checks.ledger import ledger
from app.conversion.verification.checks.localise import localise
from app.conversion.verification.checks.matrix import matrix
from app.conversion.verification.checks.parity import parity
from app.conversion.verification.checks.reference import reference
from app.conversion.verification.checks.sensitivity import sensitivity
from app.conversion.verification.checks.session import session
from app.conversion.verification.deterministic_mode import deterministic_mode
from app.conversion.verification.subject import Subject
from app.domain.report import VerificationReport

__all__ = ["Subject", "Verification", "examine", "verify"]

Mode = Literal["full", "certified", "budget"]


FULL = (
    checker,
    history,
    finite_weights,
    reference,
    session,
    determinism,
    parity,
    extremes,
    export_branch,
    dims,
    degenerate,
    decisions,
    audit,
    sensitivity,
    ledger,
    detection,
    matrix,
    latency,
    localise,
)

CERTIFIED = (
    history,
    finite_weights,
    ledger,  # before the session, so that both never lie in memory at once
    reference,
    session,
    parity,
    audit,
    sensitivity,
    matrix,
    latency,
    localise,
)

BUDGET = (
    checker,
    ledger,
    reference,
    session,
    determinism,
    budget,
    dims,
    audit,
    movement,
    latency,
)
CHECKS: Mapping[Mode, tuple[Check, ...]] = {"full": FULL, "certified": CERTIFIED, "budget": BUDGET}


@dataclass(frozen=True)
class Verification:
    """The report, and the golden inputs and outputs for the bundle as npz bytes (None when the model would not run)."""

    report: VerificationReport
    golden: bytes | None


def verify(subject: Subject, mode: Mode = "full") -> VerificationReport:
    """The report on one artifact. An artifact that its runtime refuses is a failed report, not an exception.

    Raises InvalidOptions when the client's own probes do not fit the model.
    """
    return examine(subject, mode).report


def examine(
    subject: Subject,
    mode: Mode = "full",
    eager: Callable[[], EagerSide] | None = None,
    decisions: Callable[[], Decisions] | None = None,
) -> Verification:
    """Like ``verify``, with the golden set that the same forwards yielded.

    ``eager`` and ``decisions`` give what a full verification needs of the model alone, where it is made elsewhere.
    """
    case = Case(subject, mode, eager, decisions)
    with deterministic_mode(1):
        case.use_threads(1 if _may_be_small(subject) else subject.threads)
        for check in CHECKS[mode]:
            check.carry_out(case)
        return Verification(case.report(), case.golden())


def _may_be_small(subject: Subject) -> bool:
    """Whether the model is run by one thread until it is known what a forward costs (case.py)."""
    return sum(parameter.nbytes for parameter in subject.module.parameters()) <= SMALL_BYTES
