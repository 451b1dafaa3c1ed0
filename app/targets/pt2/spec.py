"""What can be said of target ``pt2`` without torch."""

from typing import Literal

from app.domain.conversion import CommonOptions
from app.domain.report import ConversionReport
from app.targets.spec import TargetSpec, arguments


class Pt2Options(CommonOptions):
    """Options of target ``pt2``."""

    target: Literal["pt2"] = "pt2"
    keep_debug: bool = False


_PYTHON = """import torch

# Written by torch {torch}; a torch of another minor version may refuse it.
model = torch.export.load("{file}").module()
with torch.inference_mode():
    {names}, = model({inputs})
"""


def _usage(report: ConversionReport) -> dict[str, str]:
    inputs, outputs = report.export.input_names, report.export.output_names
    names = arguments(outputs, "{1}") or "output"
    version = report.environment.get("torch", "")
    return {
        "Python": _PYTHON.format(
            file=report.artifact.filename, torch=version, names=names, inputs=arguments(inputs, "{1}")
        )
    }


SPEC = TargetSpec("pt2", title="PyTorch export (.pt2)", options=Pt2Options, suffix=".pt2", usage=_usage)
