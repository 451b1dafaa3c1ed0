"""What can be said of target ``onnx`` without torch."""

from typing import Literal

from pydantic import Field

from app.domain.conversion import INT32, CommonOptions
from app.targets.onnx.usage import programs
from app.targets.spec import Serving, TargetSpec

_COARSENESS = {"fp32": 1.0, "fp16": 2.0**13}
"""Unit roundoff of each precision, by that of float32: 2^-11 and 2^-24 (IEEE 754)."""


class OnnxOptions(CommonOptions):
    """Options of target ``onnx``."""

    target: Literal["onnx"] = "onnx"
    exporter: Literal["auto", "dynamo", "torchscript"] = "auto"
    opset: int | None = Field(default=None, ge=-INT32, le=INT32)
    """Which ones can be delivered the exporters know (UnsupportedOpset); the bounds only keep the number a number."""
    ir_version: int | None = Field(default=None, ge=3, le=64)
    external_data: Literal["auto"] | bool = "auto"
    keep_debug: bool = False
    runtime: Literal["onnxruntime"] = "onnxruntime"
    """The runtime that the file is made for and proved with."""
    simplify: Literal[True] = True
    """Constants are folded and the graph is simplified, always: verification holds for the simplified file."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """Of the weights and of what the file computes; its inputs and outputs are as the model's own."""

    @property
    def coarseness(self) -> float:
        return _COARSENESS[self.precision]


SPEC = TargetSpec(
    "onnx",
    title="ONNX",
    options=OnnxOptions,
    suffix=".onnx",
    usage=programs,
    serving=Serving(triton_backend="onnxruntime", mlflow_flavour="onnx"),
)
