"""A conversion: one job, which clients see as a resource; its target, options, stages and states."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from app.domain.base import Value

TargetName = Literal["onnx", "torchscript"]
OnMismatch = Literal["fail", "warn"]
VerificationMode = Literal["auto", "full"]
Measurement = Literal["latency", "matrix"]
INT32 = 2**31 - 1
MAX_NAME = 1000
"""Characters of a name of an input, an output or an axis, and of a path in a checkpoint."""
MAX_NAMES = 4096
MAX_RANK = 64


class State(StrEnum):
    """Where a conversion stands as a whole."""

    queued = "queued"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    canceled = "canceled"
    timed_out = "timed_out"

    @property
    def final(self) -> bool:
        return self not in (State.queued, State.running)


class Stage(StrEnum):
    """The steps of a running conversion, in order. The same names stand in code, events, timings and errors."""

    inspect = "inspect"
    build = "build"
    load = "load"
    export = "export"
    verify = "verify"
    package = "package"
    publish = "publish"


Name = Annotated[str, Field(max_length=MAX_NAME)]
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_NAMES, fail_fast=True)]


class CommonOptions(Value):
    """Options of every target."""

    example_shapes: dict[Name, Annotated[tuple[int, ...], Field(max_length=MAX_RANK, fail_fast=True)]] | None = None
    """Sizes of the sample input used to export, by input name, instead of the signature's."""
    dynamic_axes: dict[Name, dict[int, Name]] | None = None
    """Axis position to axis name, by input name. None: what the signature declares. {}: everything static."""
    input_names: Names | None = None
    output_names: Names | None = None
    strict: bool = True
    allow_missing: tuple[Annotated[str, Field(max_length=200)], ...] = Field(default=(), max_length=100, fail_fast=True)
    """Patterns such as "fc.*" of keys that the checkpoint may lack although they act on the outputs."""
    prefix: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    """A leading segment to take off the uploaded keys, such as "module."; None: found out, and reported."""
    checkpoint_key: Annotated[str, Field(max_length=MAX_NAME)] = "auto"
    """Dotted path of the state dict inside the file, such as "model" or "ema.state_dict"."""
    on_mismatch: OnMismatch = "fail"
    verification: VerificationMode = "auto"
    measure: tuple[Measurement, ...] = ()
    """Figures for the report that no verdict rests on: latency of model and artifact, the parity matrix."""


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
    precision: Literal["fp32"] = "fp32"
    """Of the weights and of what the file computes."""


class TorchScriptOptions(CommonOptions):
    """Options of target ``torchscript``."""

    target: Literal["torchscript"] = "torchscript"
    method: Literal["auto", "trace", "script"] = "auto"
    freeze: bool = False
    optimize_for_inference: bool = False
    check_trace: bool = True
    keep_debug: bool = False


TargetOptions = Annotated[OnnxOptions | TorchScriptOptions, Field(discriminator="target")]
