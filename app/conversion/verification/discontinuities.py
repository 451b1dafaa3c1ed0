"""Outputs that jump: thresholds, rounded numbers, classes (docs/verification.md, point 2).

A mask ``logits > 0`` of a million pixels has some whose logit is nearer to 0 than the rounding of any evaluation. There
eager itself answers now one thing and now the other, so what the artifact answers is no fault: an element outside its
gate is excused if eager gives that very answer when its results are rounded otherwise by as much as the gate allows.
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from app.conversion.verification.random_rounding import random_rounding
from app.conversion.verification.reference import Exact, ModelFailed, Oracle, Reference
from app.conversion.verification.tolerance import FEW, FLIPPED, K, distances, is_inexact

DRAWS = 16
"""Evaluations of eager: the first as it was, the others rounded otherwise."""
STEADY_DRAWS = 4
"""Evaluations after which one with as many rows as the first says that rounding does not decide how many there are."""


def settled(outputs: Mapping[str, Tensor], reference: Reference) -> dict[str, Tensor]:
    """The outputs, with what was expected in the place of every element that lies on a step.

    Unchanged where more elements lie outside their gates than can be by chance, and where an output computes no step.
    """
    outside = {name: _outside(name, value, reference) for name, value in outputs.items()}
    if not all(_by_chance(name, mask, reference) for name, mask in outside.items()):
        return dict(outputs)
    found = {name: value.clone() for name, value in outputs.items()}
    for seed in range(DRAWS):
        if not any(bool(mask.any()) for mask in outside.values()):
            break
        try:
            moved = _rounded_otherwise(reference, seed) if seed else reference.y32
        except ModelFailed:
            continue
        for name, mask in outside.items():
            if moved[name].shape == mask.shape:
                jumped = _outside(name, moved[name], reference)
                same = mask & jumped & (distances(outputs[name], moved[name]) <= _width(name, reference))
                found[name][same] = _expected(name, reference)[same]
                outside[name] = mask & ~same
    return found


def as_many_rows(outputs: Mapping[str, Tensor], reference: Reference) -> Reference | None:
    """Eager's answer where it gives as many rows as these outputs, when its results are rounded otherwise.

    A threshold, as that of a detector's scores, decides how many there are. None where rounding decides nothing.
    """
    if [(n, v.dtype, v.dim()) for n, v in outputs.items()] != [(n, v.dtype, v.dim()) for n, v in reference.y32.items()]:
        return None
    steady = _shapes(reference.y32)
    for seed in range(1, DRAWS):
        try:
            moved = _rounded_otherwise(reference, seed)
        except ModelFailed:
            continue
        if _shapes(moved) == _shapes(outputs):
            wide = {name: value.double() if is_inexact(value) else value for name, value in moved.items()}
            answer = Exact(wide, "fp32-reordered", reference.trace)
            return replace(reference, y32=moved, oracle=Oracle(None, answer), peers=())
        if seed >= STEADY_DRAWS and _shapes(moved) == steady:
            return None
    return None


def _shapes(outputs: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for value in outputs.values()]


def _rounded_otherwise(reference: Reference, seed: int) -> dict[str, Tensor]:
    with random_rounding(seed, K):
        return reference.again(reference.probe.inputs)


def _by_chance(name: str, outside: Tensor, reference: Reference) -> bool:
    count = int(outside.sum())
    trace = reference.oracle.answer.trace
    jumps = trace.steps or bool(trace.choices) or not is_inexact(reference.y32[name])
    few = max(1.0, FLIPPED * outside.numel(), min(FEW, outside.numel() / 16))
    return count == 0 or (jumps and count <= few)


def _outside(name: str, value: Tensor, reference: Reference) -> Tensor:
    return ~(distances(value, _expected(name, reference)) <= _width(name, reference))


def _expected(name: str, reference: Reference) -> Tensor:
    """In the output's own dtype."""
    y32 = reference.y32[name]
    return reference.y64[name].to(y32.dtype) if is_inexact(y32) else y32


def _width(name: str, reference: Reference) -> float:
    return reference.gate(name).width if is_inexact(reference.y32[name]) else 0.0
