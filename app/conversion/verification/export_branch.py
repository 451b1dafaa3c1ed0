"""Does the model behave differently while it is exported (docs/verification.md, point 3)?

A module can ask ``torch.onnx.is_in_onnx_export()`` and take another way, so that the artifact is made of code that
eager never runs. The other way may agree on ordinary inputs and not on others (a clamp that rarely bites); so where the
two ways use different operators, the artifact is run on draws of many scales and both signs.
"""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn
from torch.onnx._internal.exporter import _flags

from app.conversion.verification.conditioning import amplifies_rounding
from app.conversion.verification.oracle import ModelFailed, Reference, reference
from app.conversion.verification.parity import Comparison, compare
from app.conversion.verification.probes import Probe, draw_probe
from app.conversion.verification.runtime import Runner
from app.domain.architecture import Signature

SCALES = (2.0**-7, 1.0, 2.0**4, 2.0**8, 2.0**12)


def differing_operators(module: nn.Module, signature: Signature, taken: Reference) -> Counter[str] | None:
    """Operators that only one of the two ways uses, with how often; None when both are the same.

    The float64 forward of ``taken`` is run again under the exporter's flag and the operators it reaches are compared.
    """
    if not taken.trace.operators:
        return None
    try:
        exporting = _while_exporting(module, signature, taken.probe)
    except ModelFailed:
        return None
    if exporting.trace.operators == taken.trace.operators:
        return None
    ours, theirs = taken.trace.operators, exporting.trace.operators
    return (ours - theirs) + (theirs - ours)


_while_exporting = _flags.set_onnx_exporting_flag(reference)


def stress(
    module: nn.Module, signature: Signature, runner: Runner, taken: Reference, seed: int
) -> Iterator[Comparison]:
    """The artifact on draws at every scale and with both signs, where the model is sure of its own answer."""
    for number, scale in enumerate(SCALES):
        for sign in (1, -1):
            drawn = draw_probe(signature, taken.probe.sizes, seed + number, scale=scale)
            inputs = {
                name: value * sign if value.dtype in (torch.float32, torch.float64) else value
                for name, value in drawn.inputs.items()
            }
            probe = Probe(f"stress, scale {sign * scale:g}", drawn.sizes, inputs, drawn.seed)
            try:
                stressed = reference(module, signature, probe)
            except ModelFailed:
                continue
            if stressed.finite and not amplifies_rounding(module, signature, stressed):
                yield compare(runner, stressed)
