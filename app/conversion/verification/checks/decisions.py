"""Both sides of everything that the model's Python decides on sizes and values (docs/verification.md, point 4).

A graph that one way through the code was frozen into is right where that way is taken. Which decisions matter, no rule
says: artifact and model are run at declared sizes on the other side of each (conversion/decisions finds them). What
values decide cannot be tried so: a trace that kept an answer is doubted.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from app.architectures.sample import concrete_shape
from app.conversion.decisions.nearest_sizes import smallest_size
from app.conversion.decisions.search import Decisions, SizeDecision, distinct_sizes, find_decisions
from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded, referenced, repeatable, unrefuted
from app.conversion.verification.probes import DRAWS, draw_probe, latin_sizes
from app.conversion.verification.reference import ModelFailed
from app.conversion.verification.side_by_side import disagreement
from app.conversion.verification.subject import Subject
from app.domain.architecture import Signature
from app.domain.reasons import finding_of
from app.domain.report import Decision, Finding, Reason, SideTrial
from app.targets.artifact import Runner
from app.targets.capturing.place import Place
from app.targets.capturing.quiet import first_line

CHEAP = 3e7
"""Elements that a forward may always write: some tenths of a second and a few hundred MB in float32."""
DEAR = 4.0
"""Times the work of the largest nominal probe that one further size may take."""
SHARE = 2.0
"""Times the work of all nominal probes that all further sizes may take together."""
SMALL = (2, 3)
"""Sizes that are tried of every axis; 1 is among the probes'."""


def try_sides(subject: Subject, runner: Runner, decisions: Decisions) -> tuple[Decision, ...]:
    """Every decision with what was seen on its sides; run in the order of what they tell.

    The cheapest side of each decision comes first, those of the model's own code before those of torch's layers.
    """
    budget = _Budget(subject.signature, decisions)
    signature = subject.signature
    known = (*_declared(signature, (0,)), *decisions.sizes, *_declared(signature, SMALL))
    sides = [sorted(decision.sides, key=budget.work) for decision in known]
    turns = sorted(
        (place, not decision.by_model, budget.work(sizes), number)
        for number, decision in enumerate(known)
        for place, sizes in enumerate(sides[number])
    )
    seen: dict[tuple[tuple[str, int], ...], SideTrial] = {}
    for place, _, _, number in turns:
        sizes = sides[number][place]
        if _key(sizes) not in seen:
            run = budget.spend(sizes)
            seen[_key(sizes)] = _trial(subject, runner, sizes) if run else SideTrial(sizes=sizes, seen="not_run")
    return tuple(
        Decision(
            condition=decision.condition,
            place=str(decision.place) if decision.place else None,
            by_model=decision.by_model,
            trials=tuple(seen[_key(sizes)] for sizes in sides[number]),
        )
        for number, decision in enumerate(known)
    )


def _key(sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(sizes.items()))


def _trial(subject: Subject, runner: Runner, sizes: Mapping[str, int]) -> SideTrial:
    probe = draw_probe(subject.signature, sizes, subject.seed)
    try:
        apart = disagreement(subject, runner, probe)
    except ModelFailed as failed:
        return SideTrial(sizes=dict(sizes), seen="model_fails", reason=str(failed))
    return SideTrial(sizes=dict(sizes), seen="differs" if apart else "agrees", reason=apart)


def _declared(signature: Signature, sizes: Sequence[int]) -> Iterator[SizeDecision]:
    """Of every axis those of the sizes that are declared and smaller than the exported one, whatever the code asks.

    0 is a size that no symbol takes. At few more than the least kernels take ways of their own: padding reaches the
    other end, a window holds all there is, a size that is multiplied and rounded stays the same.
    """
    start = {axis.name: axis.sample for axis in signature.axes}
    for axis in signature.axes:
        tried = [s for s in sizes if smallest_size(axis) <= s < axis.sample and s % axis.multiple_of == 0]
        if tried:
            sides = tuple({**start, axis.name: size} for size in tried)
            yield SizeDecision(f"{axis.name} > {tried[-1]}", None, False, sides)


class _Budget:
    """What further sizes may cost beside the nominal probes; elements written are the measure of time and memory."""

    def __init__(self, signature: Signature, decisions: Decisions) -> None:
        self._signature, self._decisions = signature, decisions
        self._start = distinct_sizes(signature)
        self._works: dict[tuple[tuple[str, int], ...], float] = {}
        nominal = [self.work(latin_sizes(signature, index)) for index in range(DRAWS)]
        cheap = 0.0 if decisions.too_dear else CHEAP  # of such a model a part is counted only
        self._each = max(cheap, DEAR * max(nominal))
        self._left = max(DEAR * cheap, SHARE * sum(nominal))

    def work(self, sizes: Mapping[str, int]) -> float:
        """Elements written; where the code took a size as a number, in proportion to the inputs."""
        key = _key(sizes)
        if key not in self._works:
            of_inputs = self._elements(sizes) / max(self._elements(self._start), 1)
            at = self._decisions.work.at
            self._works[key] = max(at(sizes), at(self._start) * of_inputs, float(self._elements(sizes)))
        return self._works[key]

    def spend(self, sizes: Mapping[str, int]) -> bool:
        work = self.work(sizes)
        if work > self._each or work > self._left:
            return False
        self._left -= work
        return True

    def _elements(self, sizes: Mapping[str, int]) -> int:
        return sum(math.prod(concrete_shape(self._signature, spec, sizes)) for spec in self._signature.inputs)


def size_findings(decisions: Sequence[Decision], subject: Subject) -> list[Finding]:
    """Wrong on another side: inconclusive, or a failure where the client itself asked for the axis.

    A side that was too dear to run is inconclusive where the model's own code asked; torch's layers ask for much that
    steers no graph.
    """
    found = []
    for decision in decisions:
        wrong = next((trial for trial in decision.trials if trial.seen == "differs"), None)
        if wrong is not None:
            asked = subject.asked_axes & set(re.findall(r"\w+", decision.condition))
            words = (
                f"{_words(decision)}, and the artifact is wrong at {_sizes(wrong)}: {first_line(wrong.reason or '')}"
            )
            found.append(finding_of(Reason.dims if asked else Reason.assumed_sizes, words))
        elif decision.by_model and all(trial.seen == "not_run" for trial in decision.trials):
            dear = "; ".join(map(_sizes, decision.trials))
            detail = f"{_words(decision)}; other sizes would have been too dear to run: {dear}"
            found.append(finding_of(Reason.assumed_sizes, detail))
    return found


def _words(decision: Decision) -> str:
    place = f" ({decision.place})" if decision.place else ""
    return f"the artifact holds for {decision.condition}{place}"


def _sizes(trial: SideTrial) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in trial.sizes.items())


def search_findings(decisions: Decisions) -> list[Finding]:
    """A note where the search was ended before the model's code was followed to its end."""
    if not decisions.too_dear:
        return []
    detail = (
        "following the model's code to its end would have taken too long, so not all of what it decides on sizes and "
        "values of its inputs is known; what is known was tried"
    )
    return [finding_of(Reason.unfollowed_code, detail)]


def left_out(decisions: Decisions) -> str | None:
    """The sizes at which the model's code was not looked at, in words."""
    words = dict.fromkeys(", ".join(f"{axis} {size}" for axis, size in sizes.items()) for sizes in decisions.left_out)
    return f"too dear to follow the model's code at {'; '.join(words)}" if words else None


def value_findings(decisions: Decisions, kept: Sequence[Place]) -> list[Finding]:
    """``kept``: lines at which a trace kept one answer; none for an artifact that holds the code or was exported.

    Where a line asked for a value, the trace is doubted; where the forward could not be followed, it is noted.
    """
    reads = {read.place: read.question for read in decisions.values}
    if decisions.stopped is not None:
        reads.setdefault(decisions.stopped, "its inputs")
    doubted = [place for place in dict.fromkeys(kept) if place in reads]
    if doubted:
        lines = ", ".join(map(str, doubted))
        detail = f"the model's code decides on values of its inputs ({lines}), of which the trace keeps one answer"
        return [finding_of(Reason.frozen_values, detail)]
    if kept and decisions.unfollowed is not None:
        lines = ", ".join(dict.fromkeys(map(str, kept)))
        return [finding_of(Reason.trace_warnings, f"the trace keeps what the model's code decided at {lines}")]
    return []


@check(loaded, referenced, repeatable, unrefuted)
def decisions(case: Case) -> None:
    """Point 4: both sides of what the model's Python decides on sizes; what it decides on values is a doubt."""
    subject = case.subject
    find = case.find_decisions or partial(find_decisions, subject)
    found = find()
    case.decisions = try_sides(subject, case.artifact, found)
    if (sizes := left_out(found)) is not None:
        case.not_run["decisions"] = sizes
    case.findings += search_findings(found)
    case.findings += size_findings(case.decisions, subject)
    case.findings += value_findings(found, subject.kept)
