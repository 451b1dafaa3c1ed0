"""What the exporters give."""

from dataclasses import dataclass

import onnx_ir as ir
import torch

from app.conversion.exporters.place import Place


@dataclass(frozen=True)
class CapturedOnnx:
    """An unoptimised graph. Initializers that are state-dict tensors are named by their keys and share its memory."""

    model: ir.Model
    warnings: tuple[str, ...]
    exporter: str
    kept: tuple[Place, ...] = ()
    """Lines of the model at which a trace kept the answer that its sample gave."""


@dataclass(frozen=True)
class CapturedTorchScript:
    module: torch.jit.ScriptModule
    method: str
    warnings: tuple[str, ...]
    kept: tuple[Place, ...] = ()
    """As above."""
