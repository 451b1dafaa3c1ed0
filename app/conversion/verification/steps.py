"""Outputs that jump: thresholds, rounded numbers, classes (docs/verification.md, point 2).

A mask ``logits > 0`` of a million pixels has some whose logit is nearer to 0 than the rounding of any evaluation. There
eager itself answers now one thing and now the other, so what the artifact answers is no fault: an element outside its
gate is excused if eager gives that very answer when its results are rounded otherwise by as much as the gate allows.
"""

from collections.abc import Mapping

from torch import Tensor

from app.conversion.verification.gate import FLIPPED, K, distances
from app.conversion.verification.random_rounding import random_rounding
from app.conversion.verification.reference import ModelFailed, Reference, is_inexact

DRAWS = 16
"""Evaluations of eager: the first as it was, the others rounded otherwise."""


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
        jumped = {name: _outside(name, value, reference) for name, value in moved.items()}
        for name, mask in outside.items():
            if jumped[name].shape == mask.shape:
                same = mask & jumped[name] & (distances(outputs[name], moved[name]) <= _width(name, reference))
                found[name][same] = _expected(name, reference)[same]
                outside[name] = mask & ~same
    return found


def _rounded_otherwise(reference: Reference, seed: int) -> dict[str, Tensor]:
    with random_rounding(seed, K):
        return reference.again(reference.probe.inputs)


def _by_chance(name: str, outside: Tensor, reference: Reference) -> bool:
    count = int(outside.sum())
    jumps = reference.oracle.answer.trace.steps or not is_inexact(reference.y32[name])
    return count == 0 or (jumps and count <= max(1.0, FLIPPED * outside.numel()))


def _outside(name: str, value: Tensor, reference: Reference) -> Tensor:
    return ~(distances(value, _expected(name, reference)) <= _width(name, reference))


def _expected(name: str, reference: Reference) -> Tensor:
    """In the output's own dtype."""
    y32 = reference.y32[name]
    return reference.y64[name].to(y32.dtype) if is_inexact(y32) else y32


def _width(name: str, reference: Reference) -> float:
    return reference.gate(name).width if is_inexact(reference.y32[name]) else 0.0
