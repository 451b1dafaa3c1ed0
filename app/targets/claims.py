"""What a template says of each tensor of its artifacts: the seam between templates and the weight ledger.

A claim states how a stored tensor's bytes follow from the state dict. The ledger carries the statement out on the
uploaded tensors and compares the result with the bytes on disk; a claim is never believed.

Wherever a claim names a tensor, its value is the uploaded tensor in the dtype of the module's own parameter or buffer
of that name, so that one template's claims hold for a float16 and a float32 upload alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

ClaimKind = Literal["identical", "cast", "transposed", "reshaped", "arranged", "quantized", "scale", "constant"]

ValueOf = Callable[[str], Tensor]
"""From state-dict key to the uploaded tensor."""


@dataclass(frozen=True)
class Claim:
    """How the tensor at one place of an artifact follows from the state dict.

    A place is an initializer's name, a node's first output and attribute, or the path of a TorchScript attribute.
    ``evaluate`` gives the tensor of the place, dims and dtype included; it places elements and rounds them to another
    dtype, and computes none. ``kind`` is what the report calls that. A constant has no ``tensors``: its bytes are the
    same for all weights, and ``sha256`` is that of its raw little-endian data.
    Of kinds quantized and scale, ``evaluate`` gives the float32 tensor whose levels of 8 bits, or whose steps between
    them, the place holds: how they follow from it, for each index of ``axis``, the ledger knows itself.
    """

    kind: ClaimKind
    tensors: tuple[str, ...] = ()
    evaluate: Callable[[ValueOf], Tensor] | None = None
    sha256: str | None = None
    axis: int | None = None

    def __post_init__(self) -> None:
        if (self.kind == "constant") != (self.sha256 is not None) or (self.evaluate is None) != (not self.tensors):
            raise ValueError("a constant has a hash, and every other claim tensors that it is made of")
        if (self.kind == "constant") != (not self.tensors) or (self.kind in _OF_ONE and len(self.tensors) > 1):
            raise ValueError(f"a claim of kind {self.kind} names {len(self.tensors)} tensors")
        if (self.kind in ("quantized", "scale")) != (self.axis is not None):
            raise ValueError("what is in 8 bits has an axis, and nothing else")


_OF_ONE = frozenset({"identical", "cast", "transposed", "reshaped"})
"""Kinds of places that hold one tensor."""
