"""Latency of model and artifact at the exported sizes: seconds per call, one after the other on this machine."""

import time
from collections.abc import Callable

from app.architectures.calling import EagerModel
from app.conversion.verification.case import Case
from app.conversion.verification.check import asked_for, check, loaded, referenced, unrefuted
from app.conversion.verification.oracle import eager
from app.conversion.verification.probes import Probe, sample_sizes
from app.domain.report import Latency
from app.targets.artifact import Runner

RUNS = 20
FEWEST = 2
SECONDS = 0.2
"""For each side; a slow model is measured by fewer runs."""


def latency_of(model: EagerModel, runner: Runner, probe: Probe) -> Latency:
    """Percentiles over the calls that fit in SECONDS. Both sides have run before, so nothing is warmed up here."""
    eager_times = _times(lambda: eager(model, probe.inputs))
    artifact_times = _times(lambda: runner.run(probe.inputs))
    return Latency(
        eager_p50=percentile(eager_times, 50),
        eager_p95=percentile(eager_times, 95),
        artifact_p50=percentile(artifact_times, 50),
        artifact_p95=percentile(artifact_times, 95),
        runs=min(len(eager_times), len(artifact_times)),
    )


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that at least ``percent`` % of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]


def _times(call: Callable[[], object]) -> list[float]:
    times: list[float] = []
    while len(times) < FEWEST or (len(times) < RUNS and sum(times) < SECONDS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return times


@check(asked_for("latency"), loaded, referenced, unrefuted, measures=True)
def latency(case: Case) -> None:
    """Latency, where it was asked for: p50 and p95 of both sides at the exported sizes."""
    subject = case.subject
    exported = sample_sizes(subject.signature)
    probe = next((r.probe for r in case.references if r.probe.sizes == exported), case.references[0].probe)
    case.latency = latency_of(subject, case.artifact, probe)
