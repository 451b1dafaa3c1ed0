"""Stored tensors that are constants of the architecture by what they are, not by where they were found.

Each rule rests on the other column of the ledger: a tensor of the upload that the forward reaches must be carried by
something else, in its order and as often as the forward has it. So a weight replaced by zeros, ones or a scalar is not
excused by these rules; it leaves its tensor unaccounted.
"""

import numpy as np

from app.conversion.verification.ledger_content import is_floating
from app.conversion.verification.ledger_order import GraphUse
from app.conversion.verification.onnx_tensors import Bytes, StoredTensor

_OPERANDS = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}
"""Operands that the operator's text defines as sizes or scales, never as weights."""


def constant_rule(stored: StoredTensor, uses: list[GraphUse]) -> str | None:
    """Why this can only be a constant, or None."""
    if not is_floating(stored):
        return "integers, booleans or strings: indices, shapes and masks"
    if stored.numel <= 1:
        return "a single number"
    if uses and all((use.operator, use.argument) in _OPERANDS for use in uses):
        return f"sizes of {uses[0].operator}"
    if _distinct(stored.data, stored.nbytes // stored.numel) == 1:
        return "one number repeated"
    return None


def _distinct(data: Bytes, size: int) -> int:
    """1 when all elements have the same bit pattern, else 2."""
    elements = data.reshape(-1, size)
    return 1 if np.array_equal(elements, np.broadcast_to(elements[0], elements.shape)) else 2
