"""Does eager give other values than the plain operators, because in inference it takes torch's fused attention?

An artifact holds the plain operators, and is held against them (deterministic_mode.py). The fused kernels of
nn.TransformerEncoder give zeros at padding, or fewer columns (pytorch issue 97111): who compares the artifact with his
own eager model there must be told.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.conversion.verification.checks.determinism import agree
from app.conversion.verification.oracle import eager
from app.conversion.verification.reference import ModelFailed, Reference
from app.conversion.verification.tolerance import farthest
from app.domain.architecture import Integers, Mask, Signature


def fused_departure(model: EagerModel, references: Sequence[Reference]) -> str | None:
    """Where the fused way gives more than another rounding, in words; None where it does not, or there is none."""
    if not any(isinstance(part, nn.MultiheadAttention) for part in model.module.modules()):
        return None
    for taken in _that_differ(model.signature, references):
        try:
            with _fused():
                fused = eager(model, taken.probe.inputs)
        except ModelFailed:
            return f"the fused way does not run on {taken.probe.name}"
        if not agree(taken.y32, fused):
            departing = [name for name, value in fused.items() if _departs(name, value, taken)]
            if departing:
                return f"{', '.join(departing)} on {taken.probe.name}"
    return None


def _that_differ(signature: Signature, references: Sequence[Reference]) -> Iterator[Reference]:
    """Those that may hold other padding: all of the declared distribution, but one alone of random float draws."""
    drawn = sorted((taken for taken in references if not taken.probe.scaled), key=lambda taken: taken.trace.operations)
    telling = any(isinstance(spec.distribution, Integers | Mask) for spec in signature.inputs)
    yield from (taken for number, taken in enumerate(drawn) if telling or not number or taken.probe.seed is None)


def _departs(name: str, value: Tensor, taken: Reference) -> bool:
    if value.shape != taken.y32[name].shape or name not in taken.float_outputs:
        return value.shape != taken.y32[name].shape or not torch.equal(value, taken.y32[name])
    return not farthest(value, taken.y64[name]) <= taken.gate(name).width


@contextmanager
def _fused() -> Iterator[None]:
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(True)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
