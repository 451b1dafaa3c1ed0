from pathlib import Path
from typing import Any


def run_safetensors(artifact: Path, inputs: dict[str, Any]) -> list[Any] | None:  # noqa: ARG001
    """Weights without a program compute nothing: that the tensors can be read is all that can be tried here."""
    from safetensors import safe_open

    with safe_open(str(artifact), framework="numpy") as file:
        for key in file.keys():  # noqa: SIM118 - no mapping
            file.get_slice(key).get_shape()
    return None
