"""Verify one artifact against the module it was made from: the points of docs/verification.md, in order.

``full`` proves graph and weights. ``certified`` is for an artifact of a graph that was proved before, with other
weights: one probe at sizes drawn at random, the mode and attribute audits, and the weight ledger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.conversion.verification import comparisons, measurements, readings
from app.conversion.verification.eager_side import (
    EagerSide,
    certified_probes,
    full_probes,
    take_references,
    unhurried,
)
from app.conversion.verification.evidence import Evidence
from app.conversion.verification.subject import Subject
from app.conversion.verification.surroundings import surroundings
from app.domain.report import VerificationReport
from app.processes import give_back_memory

__all__ = ["Subject", "Verification", "examine", "verify"]

Mode = Literal["full", "certified"]


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


def examine(subject: Subject, mode: Mode = "full", eager: Callable[[], EagerSide] | None = None) -> Verification:
    """Like ``verify``, with the golden set that the same forwards yielded.

    ``eager`` gives what a full verification needs of the model alone, where it is made elsewhere.
    """
    evidence = Evidence(subject)
    with surroundings(subject.threads):
        if mode == "full":
            _prove_graph_and_weights(evidence, eager)
        else:
            _prove_weights(evidence)
    return Verification(evidence.report(mode), evidence.golden())


def _prove_graph_and_weights(evidence: Evidence, eager: Callable[[], EagerSide] | None) -> None:
    readings.check_file(evidence)
    readings.check_history(evidence)
    subject = evidence.subject
    evidence.adopt(eager() if eager else take_references(subject, full_probes(subject), unhurried))
    comparisons.load_artifact(evidence, repack=True)
    comparisons.check_repeatable(evidence)
    comparisons.check_parity(evidence)
    comparisons.check_extremes(evidence)
    comparisons.check_export_branch(evidence)
    comparisons.check_dims(evidence)
    readings.audit_modes_and_attributes(evidence)
    comparisons.check_sensitivity(evidence)
    readings.check_ledger(evidence)
    measurements.measure_detection(evidence)
    measurements.fill_matrix(evidence)
    measurements.measure_latency(evidence)
    measurements.localise(evidence)


def _prove_weights(evidence: Evidence) -> None:
    readings.check_history(evidence)
    readings.check_ledger(evidence, certified=True)  # before the session, so that both never lie in memory at once
    evidence.adopt(take_references(evidence.subject, certified_probes(evidence.subject), unhurried))
    give_back_memory()  # of the float64 forward, before the session takes as much again
    comparisons.load_artifact(evidence, repack=False)
    comparisons.check_parity(evidence)
    readings.audit_modes_and_attributes(evidence)
    comparisons.check_sensitivity(evidence)
    measurements.localise(evidence)
