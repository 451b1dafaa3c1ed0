"""Golden inputs and outputs for the bundle: what a client needs to prove the artifact on its own machine.

Keys of the npz: ``input/<name>`` as fed; ``output/<name>`` the oracle's values, or eager's where the oracle was not
needed (float64 for float outputs, else the exact ones); ``gate/<name>`` the allowed absolute error, a float64 scalar
(0: exact).
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.conversion.verification.io_dtypes import narrowed
from app.conversion.verification.reference import Reference
from app.conversion.verification.tolerance import K, magnitude, rounding
from app.domain.conversion import IoDType

FAR = 64.0
"""Times c · u · scale that eager may be off where nothing tells how far it is; deep nets are off by up to 40."""


def golden_npz(reference: Reference, distances: Mapping[str, float], io_dtype: IoDType | None = None) -> bytes:
    """The npz as bytes: uncompressed, the same for the same arguments.

    ``distances``: max|artifact − y32| by output, where the oracle was not asked; of integers what is allowed.
    ``io_dtype``: in which the artifact takes inputs of float32, where not as they are.
    """
    exact = reference.y64 if reference.oracle.asked else reference.y32
    inputs = narrowed(reference.probe.inputs, io_dtype)
    arrays: dict[str, Any] = {f"input/{name}": _array(value) for name, value in inputs.items()}
    for name, value in exact.items():
        inexact = name in reference.float_outputs
        arrays[f"output/{name}"] = _array(_wide(value) if inexact else value)
        distance = distances.get(name, 0.0)
        arrays[f"gate/{name}"] = np.float64(_allowed(name, reference, distance) if inexact else distance)
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _allowed(name: str, reference: Reference, distance: float) -> float:
    """The gate; around eager, where the oracle was not asked, as wide as the gate and eager's own error together.

    That error is hardly more than twice the distance of an artifact that rounds otherwise; one that gives the same bits
    tells nothing of it.
    """
    if reference.oracle.asked:
        return reference.gate(name).width
    y32 = reference.y32[name]
    least = rounding(y32.dtype, magnitude(y32), reference.coarseness)
    return (K + 1) * max(least, 2 * distance) if distance else K * FAR * least


def _wide(value: Tensor) -> Tensor:
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


def _array(value: Tensor) -> np.ndarray:
    # numpy has no bfloat16; float32 holds every one of its values.
    return (value.float() if value.dtype == torch.bfloat16 else value).contiguous().numpy()
