"""Does the model behave differently while it is exported (docs/verification.md, point 3)?

A module can ask ``torch.onnx.is_in_onnx_export()`` and take another way, so that the artifact is made of code that
eager never runs. The other way may agree on ordinary inputs and not on others (a clamp that rarely bites); so where the
two ways use different operators or constants, the artifact is run on draws of many scales and both signs.
"""

from collections import Counter

from torch import nn
from torch.onnx._internal.exporter import _flags

from app.conversion.module_state import state_kept
from app.conversion.verification.oracle import observed
from app.conversion.verification.reference import ModelFailed, Reference
from app.domain.architecture import Signature


def differing_operators(module: nn.Module, signature: Signature, taken: Reference) -> Counter[str]:
    """Operators and constants that only one of the two ways uses, with how often; none when both are the same.

    The forward of ``taken`` is run again under the exporter's flag and what it reaches is compared.
    """
    if not taken.trace.operators:
        return Counter()
    try:
        with state_kept(module):
            _, theirs = _while_exporting(module, signature, taken.probe.inputs)
    except ModelFailed:
        return Counter()
    ours = taken.trace
    constants = ours.scalars ^ theirs.scalars
    differing = (ours.operators - theirs.operators) + (theirs.operators - ours.operators)
    return differing + Counter(f"constant {value:g}" for value in constants)


_while_exporting = _flags.set_onnx_exporting_flag(observed)
