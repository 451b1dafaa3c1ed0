"""What can be said of target ``torchscript`` without torch."""

from typing import Literal

from app.domain.conversion import CommonOptions
from app.domain.report import ConversionReport
from app.targets.spec import TargetSpec, arguments


class TorchScriptOptions(CommonOptions):
    """Options of target ``torchscript``."""

    target: Literal["torchscript"] = "torchscript"
    method: Literal["auto", "trace", "script"] = "auto"
    freeze: bool = False
    optimize_for_inference: bool = False
    check_trace: bool = True
    keep_debug: bool = False


_PYTHON = """import torch

model = torch.jit.load("{file}")
with torch.inference_mode():
    {names} = model({inputs})
"""
_CPP = """#include <torch/script.h>

torch::jit::Module model = torch::jit::load("{file}");
auto outputs = model.forward({{{inputs}}});
"""


def _usage(report: ConversionReport) -> dict[str, str]:
    file, inputs = report.artifact.filename, arguments(report.export.input_names, "{1}")
    names = arguments(report.export.output_names, "{1}") or "outputs"
    return {
        "Python": _PYTHON.format(file=file, names=names, inputs=inputs),
        "C++": _CPP.format(file=file, inputs=inputs),
    }


SPEC = TargetSpec("torchscript", title="TorchScript", options=TorchScriptOptions, suffix=".pt", usage=_usage)
