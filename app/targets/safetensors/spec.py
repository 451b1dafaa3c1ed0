"""What can be said of target ``safetensors`` without torch."""

from typing import Literal

from app.domain.conversion import CommonOptions
from app.domain.report import ConversionReport
from app.targets.spec import TargetSpec


class SafetensorsOptions(CommonOptions):
    """Options of target ``safetensors``."""

    target: Literal["safetensors"] = "safetensors"


_PYTHON = """from safetensors.torch import load_model

load_model(model, "{file}")  # model: your nn.Module of {architecture}, whose keys the file has
"""


def _usage(report: ConversionReport) -> dict[str, str]:
    return {"Python": _PYTHON.format(file=report.artifact.filename, architecture=report.architecture)}


SPEC = TargetSpec("safetensors", title="safetensors", options=SafetensorsOptions, suffix=".safetensors", usage=_usage)
