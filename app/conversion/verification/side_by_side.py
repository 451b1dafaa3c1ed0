"""Model and artifact on one further probe, where nothing but agreement is asked for."""

import torch
from torch import Tensor

from app.conversion.verification.comparison import compare, named_outputs
from app.conversion.verification.oracle import reference
from app.conversion.verification.probes import Probe
from app.conversion.verification.reference import Reference
from app.conversion.verification.subject import Model
from app.conversion.verification.tolerance import farthest, is_inexact
from app.targets.artifact import ArtifactRefused, Runner

_COARSE = 1e-3
"""Relative distance allowed where the model's own outputs are not finite, and no gate can be had."""


def disagreement(model: Model, runner: Runner, probe: Probe) -> str | None:
    """Why the artifact's answer is not the model's; None where it is.

    Raises ModelFailed where the model itself cannot run on the probe.
    """
    taken = reference(model, probe, model.coarseness)
    return compare(runner, taken).result.reason if taken.finite else _other_places(runner, taken)


def disagreement_beyond_numbers(model: Model, runner: Runner, probe: Probe) -> str | None:
    """Likewise where the model's answer is not finite; a finite one is not looked at: of ties either order is right."""
    taken = reference(model, probe, model.coarseness)
    return None if taken.finite else _other_places(runner, taken)


def _other_places(runner: Runner, taken: Reference) -> str | None:
    try:
        outputs = named_outputs(runner, taken)
    except ArtifactRefused as refusal:
        return f"the runtime failed: {refusal}"
    if not _same_structure(outputs, taken.y32):
        return "the artifact gives other outputs, shapes or dtypes than the model"
    apart = [name for name, value in taken.y32.items() if not _alike(outputs[name], value)]
    return f"{', '.join(apart)}: NaN, infinity or values in other places than the model's" if apart else None


def _same_structure(outputs: dict[str, Tensor], y32: dict[str, Tensor]) -> bool:
    return list(outputs) == list(y32) and all(
        outputs[name].shape == value.shape and outputs[name].dtype == value.dtype for name, value in y32.items()
    )


def _alike(output: Tensor, value: Tensor) -> bool:
    if not is_inexact(value) or value.numel() == 0:
        return torch.equal(output, value)
    finite = torch.isfinite(value)
    if not torch.equal(finite, torch.isfinite(output)) or not torch.equal(torch.isnan(value), torch.isnan(output)):
        return False
    if not bool(finite.any()):
        return True
    return farthest(output[finite], value[finite]) <= _COARSE * float(value[finite].abs().max())
