"""Programs that run a TorchScript artifact once, whole and made for its own names, shapes and types."""

import json
from collections.abc import Sequence

from app.domain.report import ConversionReport
from app.targets.usage import Fed, fed_inputs, tuple_of

_PYTHON = """import torch

model = torch.jit.load({file})
inputs = {{
{inputs}
}}
takes = {{argument.name for argument in model.forward.schema.arguments}}
with torch.inference_mode():
    outputs = model(**inputs) if inputs.keys() <= takes else model(*inputs.values())
"""
_CPP = """#include <torch/script.h>

#include <iostream>
#include <vector>

int main() {{
  torch::jit::Module model = torch::jit::load({file});
  c10::InferenceMode guard;
  std::vector<torch::jit::IValue> inputs{{
{inputs}
  }};
  std::cout << model.forward(inputs) << "\\n";
}}
"""
_KINDS = {"float16": "kHalf", "bfloat16": "kBFloat16", "uint8": "kUInt8"}
"""Names of libtorch's types that are not made of the dtype's own."""


def programs(report: ConversionReport) -> dict[str, str]:
    """Language to a program."""
    inputs = fed_inputs(report)
    if not inputs:
        return {}
    file = json.dumps(report.artifact.filename)
    return {
        "Python": _PYTHON.format(file=file, inputs=_torch_inputs(inputs)),
        "C++": _CPP.format(file=file, inputs=_libtorch_inputs(inputs)),
    }


def _torch_inputs(inputs: Sequence[Fed]) -> str:
    lines = []
    for fed in inputs:
        value = f"torch.full({tuple_of(fed.shape)}, {fed.fill}, dtype=torch.{fed.spec.dtype})"
        name = json.dumps(fed.spec.argument or fed.spec.name)
        lines.append(f"    {name}: {f'[{value}]' if fed.spec.in_list else value},  # {fed.meaning}")
    return "\n".join(lines)


def _libtorch_inputs(inputs: Sequence[Fed]) -> str:
    lines = []
    for fed in inputs:
        kind = _KINDS.get(fed.spec.dtype) or f"k{fed.spec.dtype.capitalize()}"
        value = f"torch::full({{{', '.join(map(str, fed.shape))}}}, {fed.fill}, torch::{kind})"
        listed = f"c10::List<torch::Tensor>({{{value}}})" if fed.spec.in_list else value
        lines.append(f"      {listed},  // {fed.meaning}")
    return "\n".join(lines)
