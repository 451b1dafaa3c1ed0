"""Do the probes move the outputs at all (verification.md, point 7)?

s = max over pairs of probes of max|y64(i) − y64(j)| / gate. An output that hardly moves lets any artifact pass: a zero
head, a constant net, a random initialisation whose signal died out. Probes of different batch size are compared on the
part that both have.

Integers and booleans are compared exactly, so any move is evidence, and one of them may well be constant: a length, a
mask of what is there. But where all outputs are such and none of them ever moves, nothing was seen.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import torch
from torch import Tensor

from app.architectures.calling import EagerModel
from app.conversion.verification.case import Case
from app.conversion.verification.check import check, referenced
from app.conversion.verification.input_reach import reached_outputs
from app.conversion.verification.probes import DRAWS, Probe, draw_probe, latin_sizes, sample_sizes
from app.conversion.verification.reference import Exact, Oracle, Reference
from app.conversion.verification.tolerance import K, farthest, magnitude, rounding, unit_roundoff
from app.domain.reasons import finding_of
from app.domain.report import Finding, OutputParity, Reason, Sensitivity
from app.targets.artifact import ArtifactRefused

THRESHOLD = 100.0
"""Below this an error of a hundredth of the outputs' whole range would still pass the gate."""
REACH = 0.25
"""Share of the greatest move there can be, 2 · scale, that is asked where that is less than THRESHOLD gates.

So it is in half precision: of the gate of a bfloat16 net, which is an eighth of its scale, no output moves by 100.
"""
REDRAWS = 10
"""Draws until one differs from the first probe where both have values: a single token may well be the same again."""
FEWEST = 4.0
"""Gates that an output must move by in any case: a constant in its place would be outside by a whole gate."""
TIMES_ITS_ERROR = 10.0
"""By which an output must move where the file was asked for in a coarser precision than the model's.

Its gate is that wide because it was asked for, so what is seen is measured by the error that the artifact made: of two
outputs m apart, a constant is off by m / 2 at least.
"""
LEAST_MOVE = 2.0**-6
"""Gates that such an output must move by however small its error is."""
CLEAR = 64.0
"""Times the threshold at which the move is beyond doubt with the least gate there is, so that no oracle is asked."""


@dataclass(frozen=True)
class Asked:
    """By how many gates an output must move, and how many of the least gate there is show it without the oracle."""

    gates: Callable[[], float] = lambda: THRESHOLD
    """Known once the oracle is asked."""
    least: float = CLEAR * THRESHOLD


def sensitivity_of(references: Sequence[Reference], asked: Mapping[str, Asked]) -> Sensitivity:
    """The figure for every float output; for the others, 0 each, where there are no float ones and none moves.

    ``asked``: by output, where that is less than of others.
    """
    names = references[0].float_outputs if references else ()
    found = {name: _spread(name, references, asked.get(name, Asked())) for name in names}
    spreads, thresholds = {name: s for name, (s, _) in found.items()}, {name: t for name, (_, t) in found.items()}
    if references and not names and not any(_moves(name, references) for name in references[0].y32):
        spreads = dict.fromkeys(references[0].y32, 0.0)
    lower = {name: threshold for name, threshold in thresholds.items() if threshold < THRESHOLD}
    return Sensitivity(per_output=spreads, threshold=THRESHOLD, thresholds=lower)


def still(measured: Sensitivity) -> list[str]:
    """The outputs that hardly move."""
    return [name for name, spread in measured.per_output.items() if spread < threshold_of(name, measured)]


def threshold_of(name: str, measured: Sensitivity) -> float:
    """Gates by which an output must move."""
    return measured.thresholds.get(name, measured.threshold)


def sensitivity_findings(measured: Sensitivity, constant: Collection[str]) -> list[Finding]:
    """What is said of outputs that hardly move. ``constant``: those of them that no input reaches."""
    return [
        finding_of(Reason.constant_output, f"{name} is a constant: no input reaches it")
        if name in constant
        else finding_of(
            Reason.insensitive,
            f"{name} moves by {measured.per_output[name]:.3g} gates over all probes (at least "
            f"{threshold_of(name, measured):.3g} needed): the outputs hardly depend on the inputs, so "
            "agreement proves nothing",
        )
        for name in still(measured)
    ]


def constants_beside(model: EagerModel, measured: Sensitivity, references: Sequence[Reference]) -> set[str]:
    """Still outputs that no input reaches, beside at least one that moves: of a constant, agreement proves all.

    Where the forward cannot be followed, none are known.
    """
    names, inputs = still(measured), references[0].probe.inputs
    if not names or not any(_moves(name, references) for name in references[0].y32 if name not in names):
        return set()
    try:
        reached = reached_outputs(model, inputs)
    except Exception:  # noqa: BLE001 - a module's forward may raise anything under a dispatch mode
        return set()
    return {name for name in names if not reached[name]}


def _spread(name: str, references: Sequence[Reference], asked: Asked) -> tuple[float, float]:
    """(greatest move between two probes in gates, gates that are asked for: as ``asked`` or less).

    In least gates of what eager computed where that leaves no doubt, else by the oracle.
    """
    if any(not taken.oracle.asked for taken in references):
        pairs = combinations(references, 2)
        widest = max(_moved(a.y32[name], b.y32[name], _least(name, a), _least(name, b)) for a, b in pairs)
        if widest >= asked.least:
            return widest, min(THRESHOLD, asked.least)
    gates = [taken.gate(name) for taken in references]
    widths = [gate.width for gate in gates]
    widest = max(
        _moved(references[i].y64[name], references[j].y64[name], widths[i], widths[j])
        for i, j in combinations(range(len(references)), 2)
    )
    reachable = max((2 * gate.scale / gate.width for gate in gates if gate.width > 0), default=0.0)
    return widest, min(asked.gates(), max(FEWEST, REACH * reachable))


def _least(name: str, taken: Reference) -> float:
    """The least gate, were the output what a sigmoid gave."""
    y32 = taken.y32[name]
    return K * max(rounding(y32.dtype, magnitude(y32)), unit_roundoff(y32.dtype)) * taken.coarseness


def _moved(left: Tensor, right: Tensor, *widths: float) -> float:
    moved, width = farthest(*common_part(left, right)), max(widths)
    return moved / width if moved > 0 and width > 0 else 0.0


def _moves(name: str, references: Sequence[Reference]) -> bool:
    """Whether an output that is compared exactly differs between two probes; its shape may only by their sizes."""
    for left, right in combinations(references, 2):
        a, b = left.y32[name], right.y32[name]
        if left.probe.sizes == right.probe.sizes and a.shape != b.shape:
            return True
        if not torch.equal(*common_part(a, b)):
            return True
    return False


def common_part(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """What two tensors of one rank but perhaps other sizes both have; of other ranks, their first elements."""
    if left.dim() != right.dim():
        return left.flatten()[:1], right.flatten()[:1]
    window = tuple(slice(0, min(a, b)) for a, b in zip(left.shape, right.shape, strict=True))
    return left[window], right[window]


@check(referenced)
def sensitivity(case: Case) -> None:
    """Point 7: the probes move the outputs.

    What is judged is the model, so where the probes that were drawn show nothing, others are, and the artifact, which
    answered the first as the model does, is run on them.
    """
    references = list(case.references)
    measured = _measured(case, references) if len(references) > 1 else None
    others = _others(case)
    while measured is None or still(measured):
        other = next(others, None)
        if other is None:
            break
        references.append(other)
        measured = _measured(case, references)
    if measured is None:
        return
    subject, case.sensitivity = case.subject, measured
    constant = constants_beside(subject, measured, references)
    case.findings += sensitivity_findings(measured, constant)


def _measured(case: Case, references: Sequence[Reference]) -> Sensitivity:
    """The figures, with thresholds by the artifact's own errors where its gate was widened."""
    return sensitivity_of(references, {} if case.subject.coarseness == 1 else _by_errors(case))


def _by_errors(case: Case) -> dict[str, Asked]:
    """By output."""
    judged: dict[str, list[tuple[OutputParity, Reference | None]]] = {}
    for compared in case.compared:
        for output in compared.result.outputs:
            judged.setdefault(output.output, []).append((output, compared.reference))
    return {name: _by_error_of(found) for name, found in judged.items()}


def _by_error_of(judged: Sequence[tuple[OutputParity, Reference | None]]) -> Asked:
    """For one output, by its error on each probe. One in least gates is held against moves in least gates."""
    in_least = all(output.judged_by == "eager" for output, _ in judged)
    told = _times_an_error(max(output.ratio for output, _ in judged))
    asked = partial(_asked_by_oracle, judged)
    return Asked(asked, max(CLEAR * LEAST_MOVE, told if in_least else CLEAR * told))


def _asked_by_oracle(judged: Sequence[tuple[OutputParity, Reference | None]]) -> float:
    """In the oracle's gates, which may be far wider than the least that eager was held against."""
    return _times_an_error(
        max(
            taken.gate(output.output).ratio(output.error) if taken and output.judged_by == "eager" else output.ratio
            for output, taken in judged
        )
    )


def _times_an_error(ratio: float) -> float:
    return min(THRESHOLD, max(LEAST_MOVE, TIMES_ITS_ERROR * ratio))


def _others(case: Case) -> Iterator[Reference]:
    """What the artifact makes of further draws: at the least sizes, then at those of the first draws and the exported.

    Their gates are the least there are; those of the probes that were judged count.
    """
    subject, first = case.subject, case.references[0]
    least = latin_sizes(subject.signature, 0)
    smaller = {axis: min(size, first.probe.sizes.get(axis, size)) for axis, size in least.items()}
    sizes = [smaller, sample_sizes(subject.signature), *(latin_sizes(subject.signature, i) for i in range(DRAWS))]
    for turn, at in enumerate(sizes):
        draws = (draw_probe(subject.signature, at, subject.seed + turn * REDRAWS + n) for n in range(1, REDRAWS))
        probe = next((probe for probe in draws if _differs(probe, first.probe)), None)
        if probe is None or case.runner is None or case.failed:
            continue
        try:
            outputs = dict(zip(first.y32, case.runner.run(probe.inputs).values(), strict=True))
        except (ArtifactRefused, ValueError):
            continue
        wide = {name: value.double() if value.is_floating_point() else value for name, value in outputs.items()}
        answer = Exact(wide, "fp64", first.trace)
        yield Reference(
            probe, outputs, first.trace, Oracle(None, answer), again=first.again, coarseness=first.coarseness
        )


def _differs(one: Probe, other: Probe) -> bool:
    pairs = (common_part(value, other.inputs[name]) for name, value in one.inputs.items())
    return any(not torch.equal(left, right) for left, right in pairs)
