"""What other tools would have said: their rules, applied to the artifact's and the model's outputs on one draw.

Sources: torch.onnx verify=True (torch/onnx/_internal/exporter/_core.py and _verification.py), optimum-onnx
(validate_model_outputs, atol 1e-5), Polygraphy (comparator defaults), onnxslim and onnxsim (check defaults), torch's
former ``torch.onnx.verification`` (rtol 1e-3, atol 1e-7).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

Outputs = Mapping[str, Tensor]
Rule = Callable[[np.ndarray, np.ndarray], bool]
"""(model's output, artifact's output) → accepted?"""


def accepts(rule: Rule, expected: Outputs, actual: Outputs | None) -> bool:
    """Whether a tool with this rule lets the artifact through. None: it did not run, which any tool notices."""
    if actual is None or len(expected) != len(actual):
        return False
    pairs = [(e.numpy(), a.numpy()) for e, a in zip(expected.values(), actual.values(), strict=True)]
    return all(e.shape == a.shape and rule(e, a) for e, a in pairs)


def _allclose(rtol: float, atol: float) -> Rule:
    return lambda expected, actual: bool(np.allclose(actual, expected, rtol=rtol, atol=atol))


def _torch_verify(expected: np.ndarray, actual: np.ndarray) -> bool:
    """Refuses from an absolute difference of 5e-3 or a relative one of 0.1 on; of NaN it refuses nothing."""
    difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    relative = difference / (np.abs(expected.astype(np.float64)) + 1e-7)
    return not (difference.max() >= 5e-3 or relative.max() >= 1e-1)


def _polygraphy(expected: np.ndarray, actual: np.ndarray) -> bool:
    """Absolute or relative difference of at most 1e-5, elementwise."""
    difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    relative = difference / np.maximum(np.abs(actual.astype(np.float64)), np.finfo(np.float32).tiny)
    return bool(((difference <= 1e-5) | (relative <= 1e-5)).all())


def _cosine(expected: np.ndarray, actual: np.ndarray) -> bool:
    left, right = (torch.from_numpy(np.asarray(array, dtype=np.float64)).flatten() for array in (expected, actual))
    return bool(torch.nn.functional.cosine_similarity(left, right, dim=0) > 0.999)


def _same_argmax(expected: np.ndarray, actual: np.ndarray) -> bool:
    if expected.ndim < 2:
        return bool((expected == actual).all())
    return bool((expected.argmax(-1) == actual.argmax(-1)).all())


RULES: dict[str, Rule] = {
    "torch.onnx verify": _torch_verify,
    "rtol 1e-3, atol 1e-5": _allclose(1e-3, 1e-5),
    "optimum 1e-5 / 1e-5": _allclose(1e-5, 1e-5),
    "torch legacy 1e-3 / 1e-7": _allclose(1e-3, 1e-7),
    "Polygraphy 1e-5": _polygraphy,
    "onnxslim 1e-3 / 1e-4": _allclose(1e-3, 1e-4),
    "onnxsim 1e-4 / 1e-5": _allclose(1e-4, 1e-5),
    "cosine > 0.999": _cosine,
    "argmax equal": _same_argmax,
}
