"""On a failed parity: the first module whose value departs from eager (verification.md, point 13).

Files carry no module names (they are stripped with other debug data), so values are matched by content: every leaf
module's float64 output is looked for among the artifact's intermediate values of the same shape. A fused module has no
value of its own, and a branch beside the fault still matches; so the departure is put where matching turns into not
matching: the module that makes "all before found, it and all after not" true of the most modules.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from app.architectures.calling import call
from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded
from app.conversion.verification.reference import Reference
from app.conversion.verification.subject import Subject
from app.conversion.verification.tolerance import UNBOUNDED, K, farthest, magnitude, rounding
from app.domain.report import Departure, Reason
from app.targets.artifact import ArtifactRefused, ModuleValue, Runner

_NOISE = 64.0
"""How much rounding may have grown on the way to an intermediate value, in gates: far less than a fault makes."""


def departure(subject: Subject, reference: Reference, runner: Runner) -> Departure | None:
    """The first departing module on this probe; None when nothing can be matched."""
    values = module_values(subject, reference)
    try:
        candidates = runner.intermediates(values, reference.probe.inputs)
    except ArtifactRefused:
        return None
    ratios = [_nearest(value.output, found) for value, found in zip(values, candidates, strict=True)]
    place = _change(ratios)
    if place is None:
        return None
    value = values[place]
    return Departure(module=value.module, kind=value.kind, value=_described(value.output), ratio=ratios[place] or 0.0)


def module_values(subject: Subject, reference: Reference) -> list[ModuleValue]:
    """Outputs of leaf modules that are one float tensor, in the order of their calls."""
    found: list[ModuleValue] = []

    def note(name: str, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        # A nested tensor, as torch's fused attention makes of a padding mask, has no one shape to be found by.
        if isinstance(output, Tensor) and output.is_floating_point() and not output.is_nested:
            tensors = tuple(arg.clone() for arg in args if isinstance(arg, Tensor))
            found.append(ModuleValue(name, type(module).__name__, tensors, output.clone()))

    handles = [
        module.register_forward_hook(lambda m, args, output, name=name: note(name, m, args, output))
        for name, module in subject.module.named_modules()
        if name and not any(True for _ in module.children())
    ]
    try:
        call(subject, reference.probe.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _change(ratios: list[float | None]) -> int | None:
    """The index from which on values are no longer found; None if all are found or none is comparable."""
    known = [(index, ratio <= 1) for index, ratio in enumerate(ratios) if ratio is not None]
    if not any(not found for _, found in known):
        return None
    scores = [
        (sum(found for _, found in known[:cut]) + sum(not found for _, found in known[cut:]), -cut, index)
        for cut, (index, found) in enumerate(known)
        if not found
    ]
    return max(scores)[2]


def _nearest(value: Tensor, candidates: Sequence[Tensor]) -> float | None:
    """The distance, in gates, to the nearest of what may be the same value in the artifact."""
    # None: a value of that size is nowhere computed, as when a normalisation was folded into the layer before it.
    return min((_distance(value, candidate.reshape(value.shape)) for candidate in candidates), default=None)


def _distance(eager: Tensor, artifact: Tensor) -> float:
    width = _NOISE * K * rounding(torch.float32, magnitude(eager))
    error = farthest(eager, artifact)
    if error == 0:
        return 0.0
    return min(error / width, UNBOUNDED) if width > 0 and error < UNBOUNDED else UNBOUNDED


def _described(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


@check(loaded, measures=True)
def localise(case: Case) -> None:
    """Point 13: on a failed parity, the first module that departs."""
    departing = [c.reference for c in case.compared if c.failure is Reason.parity and c.reference is not None]
    if departing:
        case.departure = departure(case.subject, departing[0], case.artifact)
