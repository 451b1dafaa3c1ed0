"""What can be said of target ``safetensors`` without torch."""

import json
from typing import Literal

from app.domain.conversion import CommonOptions
from app.domain.report import ConversionReport
from app.targets.spec import TargetSpec


class SafetensorsOptions(CommonOptions):
    """Options of target ``safetensors``."""

    target: Literal["safetensors"] = "safetensors"


_PYTHON = """from safetensors.torch import load_file

state_dict = load_file({file})  # safetensors.torch.load_model(model, ...) also ties what the file stores once
"""


def _programs(report: ConversionReport) -> dict[str, str]:
    return {"Python": _PYTHON.format(file=json.dumps(report.artifact.filename))}


SPEC = TargetSpec(
    "safetensors",
    title="safetensors",
    options=SafetensorsOptions,
    suffix=".safetensors",
    usage=_programs,
)
