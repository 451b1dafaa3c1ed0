"""Inputs far outside the declared distribution (docs/verification.md, point 3).

An exporter may take another way through the model than eager does: a clamp that only ``is_exporting()`` drops, a branch
on values that a trace froze. On ordinary inputs both ways may agree; on inputs of other scales they rarely do.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from app.conversion.verification.conditioning import amplifies_rounding
from app.conversion.verification.gate import farthest
from app.conversion.verification.oracle import eager, reference
from app.conversion.verification.parity import Comparison, compare
from app.conversion.verification.probes import Probe, draw_probe
from app.conversion.verification.reference import ModelFailed, Reference, is_inexact
from app.conversion.verification.runtime import ArtifactRefused, Runner
from app.domain.architecture import Signature

SCREENED = (2.0**6, -(2.0**6), 2.0**12)
"""Scales, with their signs, on which every artifact is run."""
STRESSED = tuple(sign * scale for scale in (2.0**-7, 1.0, 2.0**4, 2.0**8, 2.0**12) for sign in (1, -1))
"""Scales for an artifact of a model that is known to take another way while it is exported."""
COARSE = 1e-3
"""Relative distance of eager float32 and artifact that is looked into: only an exporter's other way gives as much."""


def screen(
    module: nn.Module, signature: Signature, runner: Runner, taken: Reference, seed: int, *, by_order: bool
) -> Iterator[Comparison]:
    """Comparisons on the draws of SCREENED where artifact and eager float32 differ by more than COARSE.

    One forward of each suffices where they agree; the oracle is asked only where they do not.
    """
    for probe in _draws(signature, taken, seed, SCREENED):
        try:
            y32 = eager(module, signature, probe.inputs)
            outputs = list(runner.run(probe.inputs).values())
        except (ModelFailed, ArtifactRefused):
            continue
        if not _close(list(y32.values()), outputs):
            yield from _judged(module, signature, runner, probe, by_order=by_order)


def stress(
    module: nn.Module, signature: Signature, runner: Runner, taken: Reference, seed: int
) -> Iterator[Comparison]:
    """Comparisons on the draws of STRESSED, where the model is sure of its own answer."""
    for probe in _draws(signature, taken, seed, STRESSED):
        yield from _judged(module, signature, runner, probe, by_order=False)


def _draws(signature: Signature, taken: Reference, seed: int, scales: Sequence[float]) -> Iterator[Probe]:
    for number, scale in enumerate(scales):
        drawn = draw_probe(signature, taken.probe.sizes, seed + number // 2, scale=abs(scale))
        turned = {n: -v if scale < 0 and v.is_floating_point() else v for n, v in drawn.inputs.items()}
        yield Probe(f"scale {scale:g}", drawn.sizes, turned, drawn.seed, scaled=True)


def _judged(
    module: nn.Module, signature: Signature, runner: Runner, probe: Probe, *, by_order: bool
) -> Iterator[Comparison]:
    try:
        taken = reference(module, signature, probe)
    except ModelFailed:
        return
    if taken.finite and not amplifies_rounding(module, signature, taken):
        yield compare(runner, taken, by_order=by_order)


def _close(expected: list[Tensor], outputs: list[Tensor]) -> bool:
    return len(expected) == len(outputs) and all(_near(e, o) for e, o in zip(expected, outputs, strict=True))


def _near(expected: Tensor, output: Tensor) -> bool:
    if expected.shape != output.shape or not is_inexact(expected):
        return torch.equal(expected, output)
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return farthest(expected, output) <= COARSE * scale
