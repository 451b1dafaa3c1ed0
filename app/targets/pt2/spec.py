"""What can be said of target ``pt2`` without torch."""

import json
from typing import Literal

from app.domain.conversion import CommonOptions
from app.domain.report import ConversionReport
from app.targets.spec import TargetSpec
from app.targets.usage import fed_inputs, tuple_of


class Pt2Options(CommonOptions):
    """Options of target ``pt2``."""

    target: Literal["pt2"] = "pt2"
    keep_debug: bool = False
    """Keep the paths and lines of source code that the program was made of."""


_PYTHON = """import torch

# Written by torch {torch}; a torch of another minor version may refuse it.
model = torch.export.load({file}).module()
inputs = [
{inputs}
]
with torch.inference_mode():
    outputs = model(*inputs)
"""


def _programs(report: ConversionReport) -> dict[str, str]:
    inputs = fed_inputs(report)
    if not inputs:
        return {}
    lines = (
        f"    torch.full({tuple_of(fed.shape)}, {fed.fill}, dtype=torch.{fed.spec.dtype}),  # {fed.meaning}"
        for fed in inputs
    )
    version, file = report.environment.get("torch", ""), json.dumps(report.artifact.filename)
    return {"Python": _PYTHON.format(torch=version, file=file, inputs="\n".join(lines))}


SPEC = TargetSpec("pt2", title="torch.export", options=Pt2Options, suffix=".pt2", usage=_programs)
