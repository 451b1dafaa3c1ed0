"""What loading said: parts that are not from the checkpoint, and weights that are not finite."""

import torch

from app.conversion.verification.case import Case
from app.conversion.verification.check import check
from app.domain.report import Reason
from app.domain.text import listed

NAMED = 5
"""Tensors that a finding names."""


@check()
def history(case: Case) -> None:
    """What load said: parts left out under strict=false."""
    load = case.subject.load
    if load.unloaded_keys:
        detail = f"{len(load.unloaded_keys)} tensors that act on the outputs have initial values: "
        case.find(Reason.unloaded_weights, detail + listed(load.unloaded_keys, NAMED) + f". {load.hint or ''}".rstrip())
    if load.missing_keys or load.ignored_keys:
        missing, left_out = len(load.missing_keys), len(load.ignored_keys)
        detail = f"{missing} keys of the model are missing, {left_out} uploaded ones were left out: "
        case.find(Reason.not_strict, detail + listed((*load.missing_keys, *load.ignored_keys), NAMED))


@check()
def finite_weights(case: Case) -> None:
    """What the upload holds: a model with weights that are not finite may have diverged in training."""
    bad = [name for name, tensor in case.subject.uploaded.items() if not _finite(tensor)]
    if bad:
        detail = f"{len(bad)} uploaded tensors hold NaN or infinity: {', '.join(bad[:NAMED])}"
        case.find(Reason.non_finite_weights, detail)


def _finite(tensor: torch.Tensor) -> bool:
    """One pass over the memory: the sum is finite unless an element is not, or it overflows: a second look tells."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.numel() == 0:
        return True
    if tensor.dtype.itemsize == 1:  # torch has no sum of 8-bit floats
        tensor = tensor.float()
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
