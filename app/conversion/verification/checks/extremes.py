"""Inputs far outside the declared distribution (docs/verification.md, point 3).

An exporter may take another way through the model than eager does: a clamp that only ``is_exporting()`` drops, a branch
on values that a trace froze. On ordinary inputs both ways may agree; on inputs of other scales they rarely do.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded, referenced, unrefuted
from app.conversion.verification.comparison import Comparison, compare, failures
from app.conversion.verification.conditioning import amplifies_rounding
from app.conversion.verification.forward_cost import LEAST_BYTES, LEAST_SECONDS, CostByScale, processor_seconds
from app.conversion.verification.oracle import eager_once_more, reference
from app.conversion.verification.probes import LARGE, LARGE_PROBE, Probe, draw_probe, has_float_inputs
from app.conversion.verification.reference import ModelFailed, Reference, cheapest
from app.conversion.verification.subject import Subject
from app.conversion.verification.tolerance import farthest, is_inexact, magnitude
from app.domain.text import message_of
from app.processes import memory_ceiling
from app.targets.artifact import ArtifactRefused, Runner

SCREENED = (2.0**6, -(2.0**6), 2.0**12)
"""Scales, with their signs, on which every artifact is run."""
STRESSED = tuple(sign * scale for scale in (2.0**-7, 1.0, 2.0**4, 2.0**8, 2.0**12) for sign in (1, -1))
"""Scales for an artifact of a model that is known to take another way while it is exported."""
FORWARDS = 4
"""About how many forwards a judged draw costs."""
COARSE = 1e-3
"""Relative distance of eager float32 and artifact that is looked into: only an exporter's other way gives as much."""


@dataclass(frozen=True)
class Screening:
    """Comparisons where artifact and eager differ, and why larger scales were left out, or None."""

    comparisons: tuple[Comparison, ...]
    left_out: str | None = None


def screen(subject: Subject, runner: Runner, references: Sequence[Reference]) -> Screening:
    """The draws of SCREENED where artifact and eager float32 differ by more than COARSE.

    One forward of each suffices where they agree; the oracle is asked only where they do not. Scales at which a forward
    would cost far more than at the nominal one are left out.
    """
    found: list[Comparison] = []
    left_out: list[str] = []
    cost = _cost_by_scale(subject, references)
    for probe, scale in _draws(subject, cheapest(references), SCREENED):
        dear = cost.refuses(abs(scale))
        if dear is not None:
            left_out.append(dear)
            break
        try:
            with memory_ceiling(LEAST_BYTES):
                begun = time.process_time()
                y32 = eager_once_more(subject, probe.inputs)
                cost.measured(abs(scale), time.process_time() - begun)
                outputs = list(runner.run(probe.inputs).values())
                if not _close(list(y32.values()), outputs):
                    found += _judged(subject, runner, probe)
        except (ModelFailed, ArtifactRefused) as failed:
            left_out.append(f"{probe.name}: {message_of(failed, 200)}")
    return Screening(tuple(found), "; ".join(left_out) or None)


def stress(subject: Subject, runner: Runner, references: Sequence[Reference]) -> Iterator[Comparison]:
    """Comparisons on the draws of STRESSED, where the model is sure of its own answer and no forward costs too much."""
    cost = _cost_by_scale(subject, references)
    for probe, scale in _draws(subject, cheapest(references), STRESSED):
        if cost.refuses(abs(scale)) is None:
            with memory_ceiling(LEAST_BYTES):
                begun = time.process_time()
                yield from _judged(subject, runner, probe)
                cost.measured(abs(scale), (time.process_time() - begun) / FORWARDS)


def _cost_by_scale(subject: Subject, references: Sequence[Reference]) -> CostByScale:
    """With what a forward costs at the nominal scale and at the largest of the probes."""
    nominal = cheapest(references)
    cost = CostByScale(nominal.seconds)
    large = (taken.seconds for taken in references if taken.probe.scaled and taken.probe.name == LARGE_PROBE)
    seconds = next(large, None)  # None: it was left out, perhaps for its cost
    cost.measured(LARGE, _seconds_at(LARGE, subject, nominal) if seconds is None else seconds)
    return cost


def _seconds_at(scale: float, subject: Subject, taken: Reference) -> float:
    probe = draw_probe(subject.signature, taken.probe.sizes, subject.seed, scale=scale)
    with memory_ceiling(LEAST_BYTES), suppress(ModelFailed):
        return processor_seconds(lambda: eager_once_more(subject, probe.inputs))
    return LEAST_SECONDS


def _draws(subject: Subject, taken: Reference, scales: Sequence[float]) -> Iterator[tuple[Probe, float]]:
    for number, scale in enumerate(scales):
        drawn = draw_probe(subject.signature, taken.probe.sizes, subject.seed + number // 2, scale=abs(scale))
        turned = {n: -v if scale < 0 and v.is_floating_point() else v for n, v in drawn.inputs.items()}
        yield Probe(f"scale {scale:g}", drawn.sizes, turned, drawn.seed, scaled=True), scale


def _judged(subject: Subject, runner: Runner, probe: Probe) -> Iterator[Comparison]:
    try:
        taken = reference(subject, probe, subject.coarseness)
    except ModelFailed:
        return
    if not taken.finite:
        return
    compared = compare(runner, taken)
    if compared.failure is None or not amplifies_rounding(subject, taken):
        yield compared


def _close(expected: list[Tensor], outputs: list[Tensor]) -> bool:
    return len(expected) == len(outputs) and all(_near(e, o) for e, o in zip(expected, outputs, strict=True))


def _near(expected: Tensor, output: Tensor) -> bool:
    if expected.shape != output.shape or not is_inexact(expected):
        return torch.equal(expected, output)
    return farthest(expected, output) <= COARSE * magnitude(expected)


@check(loaded, referenced, unrefuted)
def extremes(case: Case) -> None:
    """Point 3: far outside the declared distribution, model and artifact still take the same way."""
    subject = case.subject
    if not has_float_inputs(subject.signature):
        return
    if subject.coarseness > 1:
        case.not_run["extremes"] = "a file of less precision has less range too"
        return
    screened = screen(subject, case.artifact, case.references)
    case.findings += failures(screened.comparisons)
    if screened.left_out is not None:
        case.not_run["extremes"] = screened.left_out
