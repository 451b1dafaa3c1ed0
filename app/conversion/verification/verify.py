"""Verify one artifact against the module it was made from: the points of docs/verification.md, in order.

``full`` proves graph and weights. ``certified`` is for an artifact of a graph that was proved before, with other
weights: one probe at sizes drawn at random, the mode and attribute audits, and the weight ledger.
"""

from dataclasses import dataclass
from typing import Literal

from app.conversion.verification import points
from app.conversion.verification.evidence import Evidence
from app.conversion.verification.subject import Subject
from app.conversion.verification.surroundings import surroundings
from app.domain.report import VerificationReport

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


def examine(subject: Subject, mode: Mode = "full") -> Verification:
    """Like ``verify``, with the golden set that the same forwards yielded."""
    evidence = Evidence(subject)
    with surroundings(subject.threads):
        if mode == "full":
            _prove_graph_and_weights(evidence)
        else:
            _prove_weights(evidence)
    return Verification(evidence.report(mode), evidence.golden())


def _prove_graph_and_weights(evidence: Evidence) -> None:
    points.check_file(evidence)
    points.check_history(evidence)
    points.take_references(evidence, points.full_probes(evidence))
    points.load_artifact(evidence)
    points.check_repeatable(evidence)
    points.check_parity(evidence)
    points.check_export_branch(evidence)
    points.check_dims(evidence)
    points.audit_modes_and_attributes(evidence)
    points.check_sensitivity(evidence)
    points.check_ledger(evidence)
    points.measure_detection(evidence)
    points.fill_matrix(evidence)
    points.measure_latency(evidence)
    points.localise(evidence)


def _prove_weights(evidence: Evidence) -> None:
    points.check_history(evidence)
    points.take_references(evidence, points.certified_probes(evidence))
    points.load_artifact(evidence)
    points.check_parity(evidence)
    points.audit_modes_and_attributes(evidence)
    points.check_sensitivity(evidence)
    points.check_ledger(evidence)
    points.localise(evidence)
