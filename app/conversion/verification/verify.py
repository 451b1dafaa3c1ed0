"""Verify one artifact against the module it was made from: the points of docs/verification.md, in order.

``full`` proves graph and weights. ``certified`` is for an artifact of a graph that was proved before, with other
weights: one probe at sizes drawn at random, the mode and attribute audits, and the weight ledger.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from app.conversion.decisions.search import Decisions
from app.conversion.verification import comparisons, measurements, readings
from app.conversion.verification.eager_side import (
    EagerSide,
    certified_probes,
    full_probes,
    take_references,
    unhurried,
)
from app.conversion.verification.evidence import SMALL_BYTES, Evidence
from app.conversion.verification.subject import Subject
from app.conversion.verification.surroundings import surroundings
from app.domain.errors import RecastError, memory_ran_out
from app.domain.reasons import finding_of
from app.domain.report import Reason, VerificationReport
from app.domain.text import message_of
from app.processes import give_back_memory

__all__ = ["Subject", "Verification", "examine", "verify"]

log = logging.getLogger(__name__)

Mode = Literal["full", "certified"]


@dataclass(frozen=True)
class Check:
    """One point: ``run`` adds to the evidence. The verdict rests on it, unless it only ``measures``."""

    name: str
    run: Callable[[Evidence], None]
    measures: bool = False


def take_eager_side(evidence: Evidence) -> None:
    """Points 1 and 3: what the model alone tells, made elsewhere or now."""
    subject = evidence.subject
    evidence.adopt(
        evidence.eager() if evidence.eager else take_references(subject, full_probes(subject), unhurried),
    )


def take_certified_references(evidence: Evidence) -> None:
    """Points 1 and 3 on the probe of a certified verification."""
    evidence.adopt(take_references(evidence.subject, certified_probes(evidence.subject), unhurried))
    give_back_memory()  # of the float64 forward, before the session takes as much again


FULL = (
    Check("checker", readings.check_file),
    Check("history", readings.check_history),
    Check("reference", take_eager_side),
    Check("session", partial(comparisons.load_artifact, repack=True)),
    Check("determinism", comparisons.check_repeatable),
    Check("parity", comparisons.check_parity),
    Check("extremes", comparisons.check_extremes),
    Check("export_branch", comparisons.check_export_branch),
    Check("dims", comparisons.check_dims),
    Check("degenerate", comparisons.check_degenerate),
    Check("decisions", comparisons.check_decisions),
    Check("audit", readings.audit_modes_and_attributes),
    Check("sensitivity", comparisons.check_sensitivity),
    Check("ledger", readings.check_ledger),
    Check("detection", measurements.measure_detection, measures=True),
    Check("matrix", measurements.fill_matrix, measures=True),
    Check("latency", measurements.measure_latency, measures=True),
    Check("localise", measurements.localise, measures=True),
)

CERTIFIED = (
    Check("history", readings.check_history),
    # Before the session, so that both never lie in memory at once.
    Check("ledger", partial(readings.check_ledger, certified=True)),
    Check("reference", take_certified_references),
    Check("session", partial(comparisons.load_artifact, repack=False)),
    Check("parity", comparisons.check_parity),
    Check("audit", readings.audit_modes_and_attributes),
    Check("sensitivity", comparisons.check_sensitivity),
    Check("matrix", measurements.fill_matrix, measures=True),
    Check("latency", measurements.measure_latency, measures=True),
    Check("localise", measurements.localise, measures=True),
)


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
    evidence = Evidence(subject, eager, decisions)
    with surroundings(1):
        evidence.use_threads(1 if _may_be_small(subject) else subject.threads)
        for check in FULL if mode == "full" else CERTIFIED:
            carry_out(check, evidence)
        return Verification(evidence.report(mode), evidence.golden())


def _may_be_small(subject: Subject) -> bool:
    """Whether the model is run by one thread until it is known what a forward costs (evidence.py)."""
    return sum(parameter.nbytes for parameter in subject.module.parameters()) <= SMALL_BYTES


def carry_out(check: Check, evidence: Evidence) -> None:
    """Run one point. One that raises has failed, with its traceback in the log; a measurement is told as not made.

    Raises RecastError, which is meant for the client, and what says that memory ran out.
    """
    try:
        check.run(evidence)
    except RecastError:
        raise
    except Exception as error:
        if memory_ran_out(error):
            raise
        log.exception("%s could not be carried out", check.name)
        why = f"{type(error).__name__}: {message_of(error, 300)}"
        if check.measures:
            evidence.not_run[check.name] = why
        else:
            evidence.findings.append(finding_of(Reason.check_failed, f"{check.name} could not be carried out: {why}"))
