"""What can be said of target ``onnx`` without torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from app.domain.conversion import INT32, AccuracyBudget, CommonOptions, IoDType
from app.domain.runtime import RuntimeLimits
from app.targets.onnx.presets import PRESETS, Runtime
from app.targets.onnx.usage import programs
from app.targets.spec import Serving, TargetSpec

_PLAIN_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}$"
"""A file's name that leads to no other directory, on any system."""
_OF_THE_BUNDLE = (".onnx", ".data", ".json", ".html", ".npz", ".py")
"""How names end that files beside the artifact have already."""
_OF_DYNAMIC_RANGES = ("DynamicQuantizeLinear",)
_COARSENESS = {"fp32": 1.0, "fp16": 2.0**13, "bf16": 2.0**16, "int8": 1.0}
"""Unit roundoff of each precision, by that of float32: 2^-11, 2^-8 and 2^-24 (IEEE 754, bfloat16)."""


class OnnxOptions(CommonOptions):
    """Options of target ``onnx``."""

    of_precision = {"keep_io_types": "fp16", "activations": "int8", "budget": "int8"}

    target: Literal["onnx"] = "onnx"
    exporter: Literal["auto", "dynamo", "torchscript"] = "auto"
    """Which exporter captures the graph; auto: one after the other, until one is proved right."""
    opset: int | None = Field(default=None, ge=-INT32, le=INT32)
    """Which ones can be delivered the exporters know (UnsupportedOpset); the bounds only keep the number a number."""
    ir_version: int | None = Field(default=None, ge=3, le=64)
    """Version of the file format; None: the one that belongs to the opset."""
    external_data: Literal["auto", "checkpoint"] | bool = "auto"
    """Weights in a second file; auto: where they are too large for one; checkpoint: they stay in the uploaded one, into
    which the graph points."""
    checkpoint_name: Annotated[str, Field(pattern=_PLAIN_NAME)] | None = None
    """The uploaded file's name beside the graph, with external_data=checkpoint; None: that of the upload."""
    keep_debug: bool = False
    """Keep the lines of source code that the graph was made of."""
    runtime: Runtime = "onnxruntime"
    """The runtime that the file is made for: its opset, IR version, operators and number of files keep to what that
    one reads. It is proved with onnxruntime."""
    simplify: Literal[True] = True
    """Constants are folded and the graph is simplified, always: verification holds for the simplified file."""
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    """Of the weights and, but for bf16, of what the file computes; its inputs and outputs are as the model's own. int8
    is an approximation, which is held to the option budget."""
    keep_io_types: bool = True
    """Of fp16 alone. False: inputs and outputs that are float32 in the model are float16 in the file."""
    activations: Literal["dynamic", "static"] = "dynamic"
    """Of int8 alone. dynamic: ranges of activations are found as the file runs. static: they are measured once, on the
    probes of the request and draws from the declared distribution, and stand in the file (QuantizeLinear and
    DequantizeLinear)."""
    budget: AccuracyBudget | None = None
    """Of int8 alone: how far it may lie from the model. None: 20 dB and 0.99."""

    @model_validator(mode="after")
    def _within_limits(self) -> Self:
        limits = self.limits
        if limits is not None:
            beside = self.external_data in (True, "checkpoint")
            objections = limits.objections(
                opset=self.opset, ir_version=self.ir_version, operators=(), external_data=beside
            )
            if told := "; ".join(objections):
                raise ValueError(f"runtime {limits.name} does not admit it: {told}")
        return self

    @property
    def limits(self) -> RuntimeLimits | None:
        return PRESETS.get(self.runtime)

    @model_validator(mode="after")
    def _of_one_precision(self) -> Self:
        for option, precision in self.of_precision.items():
            if self.precision != precision and getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f"{option} goes with precision {precision} alone")
        return self

    @model_validator(mode="after")
    def _of_the_runtime(self) -> Self:
        if self.limits is not None and (why := self.limits.refuses.get(self.precision)) is not None:
            raise ValueError(f"runtime {self.limits.name} does not run precision {self.precision}: {why}")
        return self

    @model_validator(mode="after")
    def _ranges_as_it_runs(self) -> Self:
        if self.limits is not None and self.precision == "int8" and self.activations == "dynamic":
            lacking = self.limits.objections(
                opset=None, ir_version=None, operators=_OF_DYNAMIC_RANGES, external_data=False
            )
            if told := "; ".join(lacking):
                raise ValueError(
                    f"runtime {self.limits.name} does not find ranges as it runs ({told}): ask for activations=static"
                )
        return self

    @model_validator(mode="after")
    def _checkpoint_as_it_is(self) -> Self:
        if self.checkpoint_name is not None and not self.over_checkpoint:
            raise ValueError("checkpoint_name says something only with external_data=checkpoint")
        if (self.checkpoint_name or "").lower().endswith(_OF_THE_BUNDLE):
            raise ValueError(
                f"checkpoint_name may not end in {', '.join(_OF_THE_BUNDLE)}: files beside it have such names"
            )
        if self.over_checkpoint and self.precision != "fp32":
            raise ValueError(
                "external_data=checkpoint leaves the weights as they were uploaded: it goes with precision fp32 only"
            )
        return self

    @property
    def over_checkpoint(self) -> bool:
        return self.external_data == "checkpoint"

    def for_file(self, filename: str | None) -> Self:
        """A name that cannot lie beside the artifact gives none: the report then says which one it shall have."""
        if not self.over_checkpoint or self.checkpoint_name is not None or filename is None:
            return self
        try:
            return self.model_validate({**self.model_dump(exclude_unset=True), "checkpoint_name": filename})
        except ValueError:
            return self

    @property
    def coarseness(self) -> float:
        return _COARSENESS[self.precision]

    @property
    def io_dtype(self) -> IoDType | None:
        return None if self.keep_io_types else "float16"

    @property
    def tolerance(self) -> AccuracyBudget | None:
        return (self.budget or AccuracyBudget()) if self.precision == "int8" else None

    @property
    def exact(self) -> Self:
        return (
            self.model_copy(update={"precision": "fp32", "budget": None, "activations": "dynamic"})
            if self.precision == "int8"
            else self
        )


SPEC = TargetSpec(
    "onnx",
    title="ONNX",
    options=OnnxOptions,
    suffix=".onnx",
    usage=programs,
    graph_is_shown=True,
    serving=Serving(triton_backend="onnxruntime", mlflow_flavour="onnx"),
)
