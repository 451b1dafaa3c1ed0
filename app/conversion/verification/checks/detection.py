"""Negative control: what would the probes have seen (verification.md, point 8)?

Weights of the eager module are perturbed one by one, in the ways in which conversions go wrong (perturbation.py), and
the outputs held against the same gates. The share that lies outside is the detection power of the parity check alone;
what it is blind to is left to the weight ledger, which is why the ledger exists.

An artifact that was asked to round coarsely has a gate as wide as its rounding, which hides faults whatever the probes
are. Whether it is the probes that are blind is told by the gate of the model's own precision.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from app.architectures.calling import EagerModel
from app.architectures.module_state import state_kept
from app.conversion.verification.case import Case, unhurried
from app.conversion.verification.check import check
from app.conversion.verification.comparison import compare_outputs
from app.conversion.verification.oracle import eager
from app.conversion.verification.perturbation import Perturbation, draw_perturbations, faults_at, replaced
from app.conversion.verification.reference import ModelFailed, Reference
from app.domain.report import Detection, LayerDetection, Reason

FEWEST, MOST = 6, 64
LEAST_REACH = 0.5
"""Share of faults, by the gate of the model's own precision, below which the report says that the probes see little."""
BUDGET = 6e10
"""Operations (multiply-adds × 2) to spend on the cheapest probe: about half a second of float32 on two cores."""
READING = 40
"""Operations in the time in which one weight is read from memory: what a forward of few tokens spends its time on."""
SECOND_LOOKS = 5e9
"""Operations of all probes together up to which a perturbation unseen by the cheapest is tried on the others."""


def detection_of(
    model: EagerModel, references: Sequence[Reference], seed: int, pace: Callable[[], object]
) -> Detection | None:
    """The negative control on these probes; None for a module without float weights. ``pace``: before each trial."""
    probes = sorted(references, key=lambda reference: reference.trace.operations)
    weights = sum(parameter.numel() for parameter in model.module.parameters())
    prices = [reference.trace.operations + READING * weights for reference in probes]
    count = int(min(max(BUDGET / max(prices[0], 1), FEWEST), MOST))
    if sum(prices) > SECOND_LOOKS:
        probes = probes[:1]
    for probe in probes:
        probe.oracle.ask()  # while the weights are the right ones

    gates = [(probe, probe if probe.coarseness == 1 else replace(probe, coarseness=1.0)) for probe in probes]

    def trial(drawn: Perturbation) -> LayerDetection:
        pace()
        return _trial(model, gates, drawn)

    with state_kept(model.module):
        kinds = faults_at(probes[0].coarseness)
        # No name here holds a perturbation that is done: it may be as large as all weights.
        trials = list(map(trial, draw_perturbations(model.module, count, seed, kinds)))
    if not trials:
        return None
    reached = {trial.layer for trial in trials if trial.reached}
    return Detection(
        power=sum(trial.seen for trial in trials) / len(trials),
        reach=sum(bool(trial.reached) for trial in trials) / len(trials),
        trials=tuple(trials),
        blind_layers=tuple(dict.fromkeys(trial.layer for trial in trials if trial.layer not in reached)),
    )


def _trial(model: EagerModel, gates: Sequence[tuple[Reference, Reference]], drawn: Perturbation) -> LayerDetection:
    """``gates``: each probe with the artifact's gate, and with that of the model's own precision."""
    ratio, seen, reached = 0.0, False, False
    with replaced(model.module, drawn.tensors):
        for probe, own in gates:
            try:
                outputs = eager(model, probe.probe.inputs)
            except ModelFailed:
                seen = reached = True  # a perturbed model that no longer runs is seen
            else:
                result = compare_outputs(outputs, probe).result
                ratio, seen = max(ratio, result.worst_ratio), not result.passed
                within = result.passed if own is probe else compare_outputs(outputs, own).result.passed
                reached = reached or not within
            if seen:
                break
    return LayerDetection(
        layer=drawn.layer,
        tensor=next(iter(drawn.tensors)),
        perturbation=drawn.kind,
        ratio=ratio,
        seen=seen,
        reached=reached,
    )


@check(measures=True)
def detection(case: Case) -> None:
    """Point 8: what share of weight faults the probes alone would have seen, and which layers they are blind to."""
    subject = case.subject
    if not case.references or case.failed:  # the probes of an artifact that is refused prove nothing
        case.detection = None
        return
    if case.detection is None and "detection" not in case.not_run:
        case.detection = detection_of(subject, case.references, subject.seed, unhurried)
    measured = case.detection
    if measured is not None and measured.reach is not None and measured.reach < LEAST_REACH:
        blind = f" and none in {', '.join(measured.blind_layers[:5])}" if measured.blind_layers else ""
        seen = f"the probes would see {measured.reach:.0%} of weight faults{blind}"
        detail = f"{seen}; that the weights are right rests on the ledger"
        case.find(Reason.blind_layers, detail)
