"""How far eager is off where its one evaluation on a probe does not tell: the greatest error of several.

One number may be right by luck: of two errors of one distribution, the second is eight times the first in 8 % of all
cases; the second is eight times the greatest of eight in one of a million. So it is with an output of few elements, and
with one of many elements that owe their error to a single number further up.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from app.conversion.verification.random_rounding import random_rounding
from app.conversion.verification.reference import ModelFailed, NoiseOf, Reference

SAMPLES = 8
"""Errors from which the greatest can be told."""


def noise_of_few(taken: Reference) -> dict[NoiseOf, float]:
    """Eager's greatest error for outputs of fewer than SAMPLES elements, over inputs moved by their last bit."""
    few = {name: taken.y32[name].numel() for name in taken.float_outputs if 0 < taken.y32[name].numel() < SAMPLES}
    if not few or not taken.finite:
        return dict.fromkeys(((name, "") for name in few), 0.0)
    draws = -(-SAMPLES // min(few.values())) - 1
    errors = _greatest_errors(taken, lambda seed: taken.again(nudged(taken.probe.inputs, seed)), draws)
    return {(name, ""): errors.get((name, ""), 0.0) for name in few}


def with_noise(taken: Reference) -> Reference:
    """The reference with eager's greatest error for all outputs and their parts, every result rounded at random."""

    def draw(seed: int) -> dict[str, Tensor]:
        with random_rounding(seed):
            return taken.again(taken.probe.inputs)

    errors = _greatest_errors(taken, draw, SAMPLES)
    return replace(taken, noise={key: max(error, taken.measured_noise(key)) for key, error in errors.items()})


def _greatest_errors(taken: Reference, draw: Callable[[int], dict[str, Tensor]], draws: int) -> dict[NoiseOf, float]:
    greatest: dict[NoiseOf, float] = {}
    for seed in range(draws):
        with suppress(ModelFailed):
            for key, error in taken.errors(draw(seed)):
                greatest[key] = max(greatest.get(key, 0.0), error)
    return greatest


def pooled(references: Sequence[Reference]) -> list[Reference]:
    """The references with what all draws tell of the error of outputs that have fewer than SAMPLES elements.

    Scaled probes keep their own: errors need not grow with the scale.
    """
    alone = [replace(taken, peers=()) for taken in references]
    peers = tuple(taken for taken in alone if not taken.probe.scaled)
    return [taken if taken.probe.scaled else replace(taken, peers=peers) for taken in alone]


def nudged(inputs: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Every float element one step of its dtype up or down, at random; other dtypes as they are."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _nudged(v, generator) if v.is_floating_point() else v for name, v in inputs.items()}


def _nudged(value: Tensor, generator: torch.Generator) -> Tensor:
    up = torch.rand(value.shape, generator=generator) < 0.5
    return torch.nextafter(value, torch.where(up, torch.inf, -torch.inf).to(value.dtype))
