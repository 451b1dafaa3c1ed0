"""What the exporters of ONNX give."""

from dataclasses import dataclass

import onnx_ir as ir

from app.targets.capturing.place import Place


@dataclass(frozen=True)
class CapturedOnnx:
    """An unoptimised graph. Initializers that are state-dict tensors are named by their keys and share its memory."""

    model: ir.Model
    warnings: tuple[str, ...]
    exporter: str
    kept: tuple[Place, ...] = ()
    """Lines of the model at which a trace kept the answer that its sample gave."""
