"""Stored tensors that are constants of the architecture by what they are, not by where they were found.

Each rule rests on the other column of the ledger: a tensor of the upload that the forward reaches must be carried by
something else, in its order and as often as the forward has it. So a weight replaced by zeros, ones or a scalar is not
excused by these rules; it leaves its tensor unaccounted.
"""

import torch
from torch import Tensor

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.content import ONNX_DTYPES, as_tensor, is_floating
from app.conversion.verification.ledger.graph_uses import GraphUse

_OPERANDS = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}
"""Operands that the operator's text defines as sizes or scales, never as weights."""

_SILENT = -1e4
_MASK_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def constant_rule(stored: StoredTensor, uses: list[GraphUse]) -> str | None:
    """Why this can only be a constant, or None."""
    if not is_floating(stored):
        return "integers, booleans or strings: indices, shapes and masks"
    if stored.numel <= 1:
        return "a single number"
    if uses and all((use.operator, use.argument) in _OPERANDS for use in uses):
        return f"sizes of {uses[0].operator}"
    if is_fill(stored):
        return "one number repeated"
    if ONNX_DTYPES.get(stored.data_type) in _MASK_DTYPES and _is_mask(as_tensor(stored)):
        return "a mask: 0 where attention may look, a very negative number elsewhere"
    return None


def is_fill(stored: StoredTensor) -> bool:
    """Whether all elements are equal; the tensor is not empty."""
    elements = stored.data.reshape(stored.numel, -1)
    return bool((elements == elements[0]).all())


def _is_mask(tensor: Tensor) -> bool:
    """0 and one other number that silences a softmax: −∞ or below −10⁴."""
    lowest = tensor.min()
    return bool(lowest <= _SILENT) and bool(((tensor == 0) | (tensor == lowest)).all())
