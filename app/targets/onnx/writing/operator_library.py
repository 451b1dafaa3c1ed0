"""The library of ONNX operators that torch.onnx translates to, which it would read again for every export."""

from functools import cache
from typing import Any

from torch.onnx._internal.exporter import _registration


@cache
def read_once() -> None:
    """Let all exports of this process, and of those forked from it, take what the first one reads.

    For each export torch.onnx asks onnxscript for its functions, which parses the source of some five hundred of them
    to tell the domain of each: 0.35 s, half of the export of a small model. What it gets it only looks through.
    Source: ONNXRegistry.from_torchlib in torch/onnx/_internal/exporter/_registration.py.
    """
    library: Any = _registration.onnxscript_apis  # type: ignore[attr-defined]
    library.get_torchlib_ops = cache(library.get_torchlib_ops)
