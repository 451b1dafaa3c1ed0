"""What can be said of target ``onnx`` without torch."""

from typing import Literal

from pydantic import Field

from app.domain.conversion import INT32, CommonOptions
from app.domain.report import ConversionReport
from app.targets.spec import TargetSpec, arguments


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


_PYTHON = """import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
{names} = session.run(None, {{{feeds}}})
"""
_JAVASCRIPT = """import * as ort from "onnxruntime-web";

const session = await ort.InferenceSession.create("{file}");
const outputs = await session.run({{ {feeds} }});   // each an ort.Tensor
"""
_CPP = """Ort::Env env;
Ort::Session session(env, "{file}", Ort::SessionOptions{{}});
const char* inputs[] = {{{inputs}}};
const char* outputs[] = {{{outputs}}};
auto values = session.Run(Ort::RunOptions{{}}, inputs, tensors.data(), {count}, outputs, {returned});
"""


def _usage(report: ConversionReport) -> dict[str, str]:
    inputs, outputs = report.export.input_names, report.export.output_names
    names = arguments(outputs, "{1}") or "outputs"
    file, feeds = report.artifact.filename, arguments(inputs, '"{0}": {1}')
    quoted = {"inputs": arguments(inputs, '"{0}"'), "outputs": arguments(outputs, '"{0}"')}
    return {
        "Python": _PYTHON.format(file=file, names=f"[{names}]", feeds=feeds),
        "JavaScript": _JAVASCRIPT.format(file=file, feeds=feeds),
        "C++": _CPP.format(file=file, count=len(inputs), returned=len(outputs), **quoted),
    }


SPEC = TargetSpec("onnx", title="ONNX", options=OnnxOptions, suffix=".onnx", usage=_usage)
