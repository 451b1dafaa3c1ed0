"""What the exporters give."""

from dataclasses import dataclass

import onnx_ir as ir
import torch


@dataclass(frozen=True)
class CapturedOnnx:
    """An unoptimised graph. Initializers that are state-dict tensors are named by their keys and share its memory."""

    model: ir.Model
    warnings: tuple[str, ...]
    exporter: str


@dataclass(frozen=True)
class CapturedTorchScript:
    module: torch.jit.ScriptModule
    method: str
    warnings: tuple[str, ...]
