"""Model and artifact on one further probe, by one float32 forward of each where they agree.

The gate is max|artifact − y64| ≤ K · max(max|y32 − y64|, c · u · scale). As |artifact − y64| ≤ |artifact − y32| +
|y32 − y64|, an artifact within (K − 1) · c · u · scale of eager is inside it whatever y64 is, so the float64 forward is
needed only where it is not.
"""

import torch
from torch import Tensor

from app.conversion.verification.gate import C, K, farthest, unit_roundoff
from app.conversion.verification.oracle import eager, reference
from app.conversion.verification.parity import compare
from app.conversion.verification.probes import Probe
from app.conversion.verification.reference import is_inexact
from app.conversion.verification.runtime import ArtifactRefused, Runner
from app.conversion.verification.subject import Model

_COARSE = 1e-3
"""Relative distance allowed where the model's own outputs are not finite, and no gate can be had."""


def disagreement(model: Model, runner: Runner, probe: Probe) -> str | None:
    """Why the artifact's answer is not the model's; None where it is.

    Raises ModelFailed where the model itself cannot run on the probe.
    """
    y32 = eager(model.module, model.signature, probe.inputs)
    by_order = model.target == "torchscript"
    try:
        outputs = runner.run(probe.inputs)
    except ArtifactRefused as refusal:
        return f"the runtime failed: {refusal}"
    if by_order and len(outputs) == len(y32):
        outputs = dict(zip(y32, outputs.values(), strict=True))
    if _same_structure(outputs, y32):
        if all(_close(outputs[name], value, exact=True) for name, value in y32.items()):
            return None
        if any(is_inexact(value) and not bool(torch.isfinite(value).all()) for value in y32.values()):
            return _words(outputs, y32)
    return compare(runner, reference(model.module, model.signature, probe), by_order=by_order).result.reason


def _same_structure(outputs: dict[str, Tensor], y32: dict[str, Tensor]) -> bool:
    return list(outputs) == list(y32) and all(
        outputs[name].shape == value.shape and outputs[name].dtype == value.dtype for name, value in y32.items()
    )


def _words(outputs: dict[str, Tensor], y32: dict[str, Tensor]) -> str | None:
    """What differs where the model's own outputs hold NaN or infinity."""
    apart = [name for name, value in y32.items() if not _close(outputs[name], value, exact=False)]
    return f"{', '.join(apart)}: NaN, infinity or values in other places than the model's" if apart else None


def _close(output: Tensor, value: Tensor, *, exact: bool) -> bool:
    if not is_inexact(value) or value.numel() == 0:
        return torch.equal(output, value)
    finite = torch.isfinite(value)
    if not torch.equal(finite, torch.isfinite(output)) or not torch.equal(torch.isnan(value), torch.isnan(output)):
        return False
    if not bool(finite.any()):
        return True
    scale = float(value[finite].abs().max())
    allowed = (K - 1) * C * unit_roundoff(value.dtype) if exact else _COARSE
    return farthest(output[finite], value[finite]) <= allowed * scale
