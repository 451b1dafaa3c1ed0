"""Golden inputs and outputs for the bundle: what a client needs to prove the artifact on its own machine.

Keys of the npz: ``input/<name>`` as fed; ``output/<name>`` the oracle's values (float64 for float outputs, else the
exact ones); ``gate/<name>`` the allowed absolute error, a float64 scalar (0: exact).
"""

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.conversion.verification.reference import Reference


def golden_npz(reference: Reference) -> bytes:
    """The npz as bytes: uncompressed, the same for the same reference."""
    arrays: dict[str, Any] = {f"input/{name}": _array(value) for name, value in reference.probe.inputs.items()}
    for name, value in reference.y64.items():
        arrays[f"output/{name}"] = _array(value)
        inexact = name in reference.float_outputs
        arrays[f"gate/{name}"] = np.float64(reference.gate(name).width if inexact else 0.0)
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _array(value: Tensor) -> np.ndarray:
    # numpy has no bfloat16; float32 holds every one of its values.
    return (value.float() if value.dtype == torch.bfloat16 else value).contiguous().numpy()
