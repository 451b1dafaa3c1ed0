"""The points of a verification that put figures to it: what would have been seen, where it departs, how fast it is.

verify.py gives their order, docs/verification.md their reasons.
"""

from app.conversion.verification.detection import detection
from app.conversion.verification.eager_side import unhurried
from app.conversion.verification.evidence import Evidence
from app.conversion.verification.latency import latency
from app.conversion.verification.localise import departure
from app.conversion.verification.matrix import parity_matrix
from app.conversion.verification.probes import (
    sample_sizes,
)
from app.domain.reasons import finding_of
from app.domain.report import Reason

LEAST_POWER = 0.5
"""Detection power below which the report warns that parity says little about these weights."""


def measure_detection(evidence: Evidence) -> None:
    """Point 8: what share of weight faults the probes alone would have seen, and which layers they are blind to."""
    subject = evidence.subject
    if not evidence.references or evidence.failed:
        evidence.detection = None
        return
    if evidence.detection is None and "detection" not in evidence.not_run:
        with evidence.clock.part("detection"):
            evidence.detection = detection(
                subject.module, subject.signature, evidence.references, subject.seed, unhurried
            )
    measured = evidence.detection
    if measured is not None and measured.power < LEAST_POWER:
        blind = f" and none in {', '.join(measured.blind_layers[:5])}" if measured.blind_layers else ""
        seen = f"the probes would see {measured.power:.0%} of weight faults{blind}"
        detail = f"{seen}; that the weights are right rests on the ledger"
        evidence.findings.append(finding_of(Reason.blind_layers, detail))


def fill_matrix(evidence: Evidence) -> None:
    """The parity matrix on the first failing probe, or on the cheapest where it was asked for."""
    if not evidence.compared or not (evidence.failed or "matrix" in evidence.subject.measure):
        return
    pairs = [(c.reference, c) for c in evidence.compared if c.reference is not None]
    failed = [pair for pair in pairs if not pair[1].result.passed]
    taken, delivered = failed[0] if failed else min(pairs, key=lambda pair: pair[0].trace.operations)
    with evidence.clock.part("matrix"):
        evidence.matrix = parity_matrix(evidence.subject, taken, delivered)


def measure_latency(evidence: Evidence) -> None:
    """Latency, where it was asked for: p50 and p95 of both sides at the exported sizes."""
    subject = evidence.subject
    if "latency" not in subject.measure:
        return
    if evidence.runner is None or evidence.failed or not evidence.references:
        return
    exported = sample_sizes(subject.signature)
    probe = next((r.probe for r in evidence.references if r.probe.sizes == exported), evidence.references[0].probe)
    with evidence.clock.part("latency"):
        evidence.latency = latency(subject.module, subject.signature, evidence.runner, probe)


def localise(evidence: Evidence) -> None:
    """Point 13: on a failed parity, the first module that departs."""
    if evidence.runner is None:
        return
    departing = [c.reference for c in evidence.compared if c.failure is Reason.parity and c.reference is not None]
    if departing:
        with evidence.clock.part("localise"):
            evidence.departure = departure(evidence.subject, departing[0], evidence.runner)
