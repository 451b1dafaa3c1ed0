"""Which ways through a model's code an artifact has to hold: one more wherever it was wrong.

A captured graph holds one way. Where the model's code asks something of sizes, and the artifact is wrong at sizes that
answer otherwise than those it was captured at, a capture at these is joined to it, and the question goes into the
graph (targets/capturing/side.py). Of all that the code asks, the question is taken by which right and wrong sizes are
best told apart; verification decides whether it was the right one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.conversion.decisions.nearest_sizes import Sizes
from app.conversion.decisions.search import SizeDecision
from app.domain.report import VerificationReport
from app.targets.capturing.side import Side, holds

MOST_SIDES = 5
"""That a graph is joined of: each costs a capture and a verification."""


@dataclass(frozen=True)
class Outcome:
    """Whether the artifact agreed with the model at these sizes."""

    sizes: Sizes
    agreed: bool


def outcomes_of(report: VerificationReport) -> list[Outcome]:
    """What was seen at which sizes, on the sides of decisions first."""
    trials = (trial for decision in report.decisions for trial in decision.trials)
    seen = [Outcome(trial.sizes, trial.seen == "agrees") for trial in trials if trial.seen in ("agrees", "differs")]
    return [*seen, *(Outcome(probe.sizes, probe.passed) for probe in report.probes)]


def divided(
    sides: Sequence[Side], outcomes: Sequence[Outcome], decisions: Sequence[SizeDecision]
) -> tuple[Side, ...] | None:
    """``sides`` with each that is wrong somewhere parted in two; None where nothing that the code asks parts them."""
    of_side: dict[int, list[Outcome]] = {number: [] for number in range(len(sides))}
    for outcome in outcomes:
        of_side[next(n for n, side in enumerate(sides) if side.serves(outcome.sizes))].append(outcome)
    result: list[Side] = []
    for number, side in enumerate(sides):
        parts = _parts(side, of_side[number], decisions)
        if parts is None:
            return None
        result += parts
    return tuple(result) if len(sides) < len(result) <= MOST_SIDES else None


def _parts(side: Side, outcomes: Sequence[Outcome], decisions: Sequence[SizeDecision]) -> tuple[Side, ...] | None:
    """The side itself, where all is right; else where a test holds as at its own sizes, and the rest of it."""
    wrong = next((outcome.sizes for outcome in outcomes if not outcome.agreed), None)
    if wrong is None:
        return (side,)

    def told_apart(test: str) -> int:
        return sum(outcome.agreed == holds(test, outcome.sizes) for outcome in outcomes)

    parting = [test for test in _tests(side, wrong, decisions) if not holds(test, wrong)]
    if not parting:
        return None
    best = max(parting, key=told_apart)  # the first of equals
    return Side(side.sizes, (*side.tests, best)), Side(_nearest(side.sizes, wrong, best), side.tests)


def _tests(side: Side, sizes: Sizes, decisions: Iterable[SizeDecision]) -> Iterator[str]:
    """What holds at the side's own sizes: what was asked with these sizes in view first, then what the model asked."""
    for decision in sorted(decisions, key=lambda each: (sizes not in each.sides, not each.by_model)):
        if decision.test is not None:
            yield decision.test if holds(decision.test, side.sizes) else f"not ({decision.test})"
    for axis, size in sizes.items():
        # A symbol is neither, so that nothing tells of the question.
        if size in (0, 1) and side.sizes[axis] != size and axis.isidentifier():
            yield f"{axis} != {size}"


def _nearest(start: Mapping[str, int], sizes: Sizes, test: str) -> Sizes:
    """Sizes at which ``test`` does not hold, on as few axes other than ``start`` as may be."""
    nearest = dict(sizes)
    for axis in sizes:
        closer = {**nearest, axis: start[axis]}
        if not holds(test, closer):
            nearest = closer
    return nearest
