"""Optimising a captured graph with its weights in place: the direct path, where no template is used."""

import onnx_ir as ir
import onnxscript.optimizer

from app.conversion.exporters.onnx_finish import strip_debug
from app.conversion.exporters.quiet import collected


def optimise(model: ir.Model) -> ir.Model:
    """Fold constants and simplify, by onnxscript's optimiser. ``model`` may be changed.

    Batch norms may be folded into convolutions: an initializer can keep a state-dict key's name with another value.
    """
    with collected():
        optimised: ir.Model = onnxscript.optimizer.optimize(model, onnx_shape_inference=False)
    strip_debug(optimised)
    return optimised
