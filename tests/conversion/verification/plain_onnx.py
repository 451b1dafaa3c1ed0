"""ONNX files of captured graphs with the weights in place, as other tools write them."""

from pathlib import Path

import onnx_ir as ir
import onnxscript.optimizer

from app.conversion.exporters.onnx_finish import strip_debug
from app.conversion.exporters.quiet import collected


def optimised(model: ir.Model) -> ir.Model:
    """The graph with constants folded; an initializer can keep a state-dict key's name with another value."""
    with collected():
        result: ir.Model = onnxscript.optimizer.optimize(model, onnx_shape_inference=False)
    strip_debug(result)
    return result


def write(model: ir.Model, path: Path) -> None:
    ir.save(model, path)
