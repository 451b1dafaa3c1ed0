from pathlib import Path
from typing import Any


def run_onnx(artifact: Path, inputs: dict[str, Any]) -> list[Any]:
    """Outputs in the order of the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(artifact), providers=["CPUExecutionProvider"])
    feed = {node.name: inputs[node.name] for node in session.get_inputs()}
    return list(session.run(None, feed))
