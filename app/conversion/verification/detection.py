"""Negative control: what would the probes have seen (verification.md, point 8)?

Weights of the eager module are perturbed one by one, in the ways in which conversions go wrong (perturbation.py), and
the outputs held against the same gates. The share that lies outside is the detection power of the parity check alone;
what it is blind to is left to the weight ledger, which is why the ledger exists.
"""

from collections.abc import Callable, Sequence

from torch import nn

from app.architectures.module_state import state_kept
from app.conversion.verification.oracle import eager
from app.conversion.verification.parity import compare_outputs
from app.conversion.verification.perturbation import Perturbation, draw_perturbations, replaced
from app.conversion.verification.reference import ModelFailed, Reference
from app.domain.architecture import Signature
from app.domain.report import Detection, LayerDetection

FEWEST, MOST = 6, 64
BUDGET = 6e10
"""Operations (multiply-adds × 2) to spend on the cheapest probe: about half a second of float32 on two cores."""
READING = 40
"""Operations in the time in which one weight is read from memory: what a forward of few tokens spends its time on."""
SECOND_LOOKS = 5e9
"""Operations of all probes together up to which a perturbation unseen by the cheapest is tried on the others."""


def detection(
    module: nn.Module, signature: Signature, references: Sequence[Reference], seed: int, pace: Callable[[], object]
) -> Detection | None:
    """The negative control on these probes; None for a module without float weights. ``pace``: before each trial."""
    probes = sorted(references, key=lambda reference: reference.trace.operations)
    weights = sum(parameter.numel() for parameter in module.parameters())
    prices = [reference.trace.operations + READING * weights for reference in probes]
    count = int(min(max(BUDGET / max(prices[0], 1), FEWEST), MOST))
    if sum(prices) > SECOND_LOOKS:
        probes = probes[:1]
    for probe in probes:
        probe.oracle.ask()  # while the weights are the right ones
    trials = []
    with state_kept(module):
        for drawn in draw_perturbations(module, count, seed):
            pace()
            trials.append(_trial(module, signature, probes, drawn))
    if not trials:
        return None
    seen = {trial.layer for trial in trials if trial.seen}
    return Detection(
        power=sum(trial.seen for trial in trials) / len(trials),
        trials=tuple(trials),
        blind_layers=tuple(dict.fromkeys(trial.layer for trial in trials if trial.layer not in seen)),
    )


def _trial(module: nn.Module, signature: Signature, probes: Sequence[Reference], drawn: Perturbation) -> LayerDetection:
    ratio, seen = 0.0, False
    with replaced(module, drawn.tensors):
        for probe in probes:
            try:
                comparison = compare_outputs(eager(module, signature, probe.probe.inputs), probe)
            except ModelFailed:
                seen = True  # a perturbed model that no longer runs is seen
            else:
                ratio = max(ratio, comparison.result.worst_ratio)
                seen = not comparison.result.passed
            if seen:
                break
    return LayerDetection(
        layer=drawn.layer, tensor=next(iter(drawn.tensors)), perturbation=drawn.kind, ratio=ratio, seen=seen
    )
