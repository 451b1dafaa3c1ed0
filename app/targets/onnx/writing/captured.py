"""What the exporters of ONNX give."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from app.targets.capturing.place import Place


@dataclass(frozen=True)
class CapturedOnnx:
    """An unoptimised graph. Initializers that are state-dict tensors are named by their keys and share its memory."""

    model: ir.Model
    warnings: tuple[str, ...]
    exporter: str
    kept: tuple[Place, ...] = ()
    """Lines of the model at which a trace kept the answer that its sample gave."""
    traced_with: tuple[Mapping[str, Tensor], ...] = ()
    """Inputs with which the code ran, of which the graph records what it did; none for code that was compiled or run
    without values."""
