"""Code to run an artifact, made for its own names and shapes, to be copied from its page."""

from app.domain.report import ConversionReport

ONNX_PYTHON = """import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
{names} = session.run(None, {{{feeds}}})
"""
ONNX_JAVASCRIPT = """import * as ort from "onnxruntime-web";

const session = await ort.InferenceSession.create("{file}");
const outputs = await session.run({{ {feeds} }});   // each an ort.Tensor
"""
ONNX_CPP = """Ort::Env env;
Ort::Session session(env, "{file}", Ort::SessionOptions{{}});
const char* inputs[] = {{{inputs}}};
const char* outputs[] = {{{outputs}}};
auto values = session.Run(Ort::RunOptions{{}}, inputs, tensors.data(), {count}, outputs, {returned});
"""
TORCHSCRIPT_PYTHON = """import torch

model = torch.jit.load("{file}")
with torch.inference_mode():
    {names} = model({inputs})
"""
TORCHSCRIPT_CPP = """#include <torch/script.h>

torch::jit::Module model = torch::jit::load("{file}");
auto outputs = model.forward({{{inputs}}});
"""


def snippets(report: ConversionReport) -> dict[str, str]:
    """Language to code that loads the artifact and runs it once."""
    inputs, outputs = report.export.input_names, report.export.output_names
    file = report.artifact.filename
    names = ", ".join(_identifier(name) for name in outputs) or "outputs"
    if report.target == "onnx":
        told = {"file": file, "names": f"[{names}]", "count": len(inputs), "returned": len(outputs)}
        return {
            "Python": ONNX_PYTHON.format(feeds=_pairs(inputs, '"{0}": {1}'), **told),
            "JavaScript": ONNX_JAVASCRIPT.format(feeds=_pairs(inputs, '"{0}": {1}'), **told),
            "C++": ONNX_CPP.format(inputs=_pairs(inputs, '"{0}"'), outputs=_pairs(outputs, '"{0}"'), **told),
        }
    arguments = _pairs(inputs, "{1}")
    return {
        "Python": TORCHSCRIPT_PYTHON.format(file=file, names=names, inputs=arguments),
        "C++": TORCHSCRIPT_CPP.format(file=file, inputs=arguments),
    }


def _pairs(names: tuple[str, ...], form: str) -> str:
    return ", ".join(form.format(_quoted(name), _identifier(name)) for name in names)


def _quoted(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


def _identifier(name: str) -> str:
    """The name as a variable: other characters become underscores."""
    kept = "".join(character if character.isalnum() and character.isascii() else "_" for character in name)
    return kept if kept and not kept[0].isdigit() else f"value_{kept}"
