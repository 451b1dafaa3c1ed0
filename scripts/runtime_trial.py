"""Run an ONNX file on golden inputs in whatever runtime this interpreter has: ``runtime_trial.py FILE GOLDEN``.

Prints JSON: the runtime and the largest error of an output by its gate. Imports nothing of the service.
"""

import json
import sys
from typing import Any

import numpy as np


def main(path: str, golden: str) -> None:
    with np.load(golden, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    inputs = {key.removeprefix("input/"): value for key, value in arrays.items() if key.startswith("input/")}
    expected = {key.removeprefix("output/"): value for key, value in arrays.items() if key.startswith("output/")}
    runtime, outputs = run(path, inputs, list(expected))
    worst = 0.0
    for (name, want), got in zip(expected.items(), outputs, strict=True):
        if got.shape != want.shape:
            raise SystemExit(f"{name} has shape {got.shape}, {want.shape} expected")
        error, gate = float(np.abs(got.astype(np.float64) - want).max()), float(arrays[f"gate/{name}"])
        worst = max(worst, error / gate if gate else float(error > 0) * 1e30)
    print(json.dumps({"runtime": runtime, "ratio": worst}))


def run(path: str, inputs: dict[str, Any], names: list[str]) -> tuple[str, list[Any]]:
    """The runtime's name and the outputs, in order."""
    try:
        import onnxruntime
    except ImportError:
        import cv2

        net = cv2.dnn.readNetFromONNX(path)
        for name, value in inputs.items():
            net.setInput(value, name)
        return f"OpenCV {cv2.__version__}", list(net.forward(names))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {node.name: inputs[node.name] for node in session.get_inputs()}
    return f"onnxruntime {onnxruntime.__version__}", list(session.run(None, feed))


if __name__ == "__main__":
    main(*sys.argv[1:])
