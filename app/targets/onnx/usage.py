"""Programs that run an ONNX artifact once, whole and made for its own names, shapes and types."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from app.domain.report import ConversionReport
from app.targets.usage import Fed, fed_inputs, tuple_of


@dataclass(frozen=True)
class TypeNames:
    """What one dtype is called in each language. ``array``: JavaScript's typed array; "" where it has none."""

    numpy: str
    cpp: str
    array: str


TYPES: Mapping[str, TypeNames] = {
    "float16": TypeNames("float16", "Ort::Float16_t", "Uint16Array"),
    "bfloat16": TypeNames("", "Ort::BFloat16_t", ""),
    "float32": TypeNames("float32", "float", "Float32Array"),
    "float64": TypeNames("float64", "double", "Float64Array"),
    "int8": TypeNames("int8", "int8_t", "Int8Array"),
    "uint8": TypeNames("uint8", "uint8_t", "Uint8Array"),
    "int16": TypeNames("int16", "int16_t", "Int16Array"),
    "int32": TypeNames("int32", "int32_t", "Int32Array"),
    "int64": TypeNames("int64", "int64_t", "BigInt64Array"),
    "bool": TypeNames("bool", "bool", "Uint8Array"),
}

_PYTHON = """import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession({file}, providers=["CPUExecutionProvider"])
inputs = {{
{inputs}
}}
for told, value in zip(session.get_outputs(), session.run(None, inputs)):
    print(told.name, value.shape, value.dtype)
"""
_JAVASCRIPT = """import * as ort from "onnxruntime-web"; // or "onnxruntime-node"

const session = await ort.InferenceSession.create({file});
const outputs = await session.run({{
{inputs}
}});
for (const [name, value] of Object.entries(outputs)) console.log(name, value.dims, value.type);
"""
_CPP = """#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <vector>

int main() {{
  Ort::Env env;
  Ort::Session session(env, {file}, Ort::SessionOptions{{}});
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<Ort::Value> inputs;
{inputs}
  const char* input_names[] = {{{input_names}}};
  const char* output_names[] = {{{output_names}}};
  auto outputs = session.Run(Ort::RunOptions{{}}, input_names, inputs.data(), {count}, output_names, {returned});
  for (auto& output : outputs) std::cout << output.GetTensorTypeAndShapeInfo().GetElementCount() << " elements\\n";
}}
"""


def programs(report: ConversionReport) -> dict[str, str]:
    """Language to a program; none for a language that has not the type of an input."""
    inputs = fed_inputs(report)
    if not inputs:
        return {}
    file, outputs = json.dumps(report.artifact.filename), report.export.output_names
    made = {}
    if all(TYPES[fed.spec.dtype].numpy for fed in inputs):
        made["Python"] = _PYTHON.format(file=file, inputs=_numpy_inputs(inputs))
    made["C++"] = _CPP.format(
        file=file,
        inputs=_cpp_inputs(inputs),
        input_names=", ".join(json.dumps(fed.spec.name) for fed in inputs),
        output_names=", ".join(json.dumps(name) for name in outputs),
        count=len(inputs),
        returned=len(outputs),
    )
    if all(TYPES[fed.spec.dtype].array for fed in inputs):
        made["JavaScript"] = _JAVASCRIPT.format(file=file, inputs=_javascript_inputs(inputs))
    return made


def _numpy_inputs(inputs: Sequence[Fed]) -> str:
    return "\n".join(
        f"    {json.dumps(fed.spec.name)}: np.full({tuple_of(fed.shape)}, {fed.fill}, "
        f"np.{TYPES[fed.spec.dtype].numpy}),  # {fed.meaning}"
        for fed in inputs
    )


def _javascript_inputs(inputs: Sequence[Fed]) -> str:
    lines = []
    for fed in inputs:
        fill = f"{fed.fill}n" if fed.spec.dtype == "int64" else str(fed.fill)
        values = f"new {TYPES[fed.spec.dtype].array}({prod(fed.shape)}).fill({fill})"
        tensor = f'new ort.Tensor("{fed.spec.dtype}", {values}, {list(fed.shape)})'
        lines.append(f"  {json.dumps(fed.spec.name)}: {tensor}, // {fed.meaning}")
    return "\n".join(lines)


def _cpp_inputs(inputs: Sequence[Fed]) -> str:
    lines = []
    for place, fed in enumerate(inputs):
        kind, count = TYPES[fed.spec.dtype].cpp, prod(fed.shape)
        fill = f" std::fill_n(values{place}.get(), {count}, {kind}({fed.fill}));" if fed.fill else ""
        lines += [
            f"  auto values{place} = std::make_unique<{kind}[]>({count});{fill}  // {fed.meaning}",
            f"  std::vector<int64_t> shape{place}{{{', '.join(map(str, fed.shape))}}};",
            f"  inputs.push_back(Ort::Value::CreateTensor<{kind}>(",
            f"      memory, values{place}.get(), {count}, shape{place}.data(), shape{place}.size()));",
        ]
    return "\n".join(lines)
