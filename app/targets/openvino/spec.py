"""What can be said of target ``openvino`` without torch."""

import json
from typing import Literal

from pydantic import Field

from app.domain.conversion import INT32, CommonOptions
from app.domain.report import ConversionReport
from app.targets.spec import TargetSpec
from app.targets.usage import fed_inputs, tuple_of


class OpenVinoOptions(CommonOptions):
    """Options of target ``openvino``."""

    target: Literal["openvino"] = "openvino"
    exporter: Literal["auto", "dynamo", "torchscript"] = "auto"
    """Of the ONNX graph that the file is derived from."""
    opset: int | None = Field(default=None, ge=-INT32, le=INT32)
    """Of that graph."""


_PYTHON = """import numpy as np
import openvino

# The weights are read from {data}, which must lie beside it.
model = openvino.Core().compile_model({file}, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
outputs = model({{
{inputs}
}})
for port, value in outputs.items():
    print(port.any_name, value.shape, value.dtype)
"""


def _programs(report: ConversionReport) -> dict[str, str]:
    inputs = fed_inputs(report)
    if not inputs or any(fed.spec.dtype == "bfloat16" for fed in inputs):
        return {}
    lines = (
        f"    {json.dumps(fed.spec.name)}: np.full({tuple_of(fed.shape)}, {fed.fill}, np.{fed.spec.dtype}),"
        f"  # {fed.meaning}"
        for fed in inputs
    )
    data = report.artifact_data.filename if report.artifact_data else "the .bin file"
    file = json.dumps(report.artifact.filename)
    return {"Python": _PYTHON.format(file=file, data=data, inputs="\n".join(lines))}


SPEC = TargetSpec(
    "openvino",
    title="OpenVINO",
    options=OpenVinoOptions,
    suffix=".xml",
    media_type="application/xml",
    usage=_programs,
    requires="openvino",
)
