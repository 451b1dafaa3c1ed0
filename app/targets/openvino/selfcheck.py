import sys
from pathlib import Path
from typing import Any


def run_openvino(artifact: Path, inputs: dict[str, Any]) -> list[Any]:
    """Outputs in the order of the file, computed in float32 as they were proved."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # OpenVINO goes on without
    import openvino

    model = openvino.Core().compile_model(str(artifact), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    given = model({port.any_name: inputs[port.any_name] for port in model.inputs})
    return [given[port] for port in model.outputs]
