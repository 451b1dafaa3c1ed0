"""Is the model sure of its own answer on a probe (verification.md, point 3)?

Outside the declared distribution a model may amplify rounding, and then one float32 evaluation says little about how
far another may lie. Measured at eight times the scale: mobilenet_v3_small was off by 1.6e-6 of the output in eager and
by 3.7e-5 in onnxruntime, while inputs moved by their last bit moved eager by 1e-6 to 5e-5; efficientnet_b0 by 3e-6 to
3e-1. Nets that do not amplify (resnet18, densenet121, swin_t, convnext_tiny, squeezenet1_1, vit_tiny) stay below 5e-7,
nudged or not.
"""

from torch import Tensor

from app.architectures.calling import EagerModel
from app.conversion.verification.noise import nudged
from app.conversion.verification.oracle import eager
from app.conversion.verification.reference import ModelFailed, Reference
from app.conversion.verification.tolerance import farthest, rounding

LIMIT = 8.0
"""Times c · u · scale (tolerance.py) beyond which an error shows that the model amplifies rounding."""
NUDGES = 2


def amplifies_rounding(model: EagerModel, reference: Reference) -> bool:
    """True if eager, on the probe or on its inputs moved by their last bit, departs from the oracle by over LIMIT."""
    if _departs(reference.y32, reference):
        return True
    for seed in range(NUDGES):
        try:
            if _departs(eager(model, nudged(reference.probe.inputs, seed)), reference):
                return True
        except ModelFailed:
            return True
    return False


def _departs(outputs: dict[str, Tensor], reference: Reference) -> bool:
    for name in reference.float_outputs:
        value, exact = outputs[name], reference.y64[name]
        if value.shape != exact.shape:
            return True
        allowed = LIMIT * rounding(value.dtype, reference.gate(name).scale)
        if not farthest(value, exact) <= allowed:
            return True
    return False
