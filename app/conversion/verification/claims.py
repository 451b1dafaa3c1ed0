"""What a template says of each initializer it writes: the seam between templates and the weight ledger.

A claim states how an initializer's bytes follow from the state dict. The ledger recomputes the statement from the
uploaded tensors and compares it with the bytes on disk; a claim is never believed.

Wherever a claim names a tensor, its value is the uploaded tensor in the dtype of the module's own parameter or buffer
of that name, so that one template's claims hold for a float16 and a float32 upload alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

ClaimKind = Literal["identical", "cast", "transposed", "reshaped", "arranged", "folded", "constant"]

Arrangement = Callable[[Callable[[str], Tensor]], Tensor]
"""Given a function from state-dict key to tensor, the initializer's value. Places elements; computes none."""


@dataclass(frozen=True)
class ConvBnFold:
    """A batch norm in eval mode taken into the convolution or linear layer before it.

    weight' = w · γ/√(σ² + ε), bias' = (b − μ) · γ/√(σ² + ε) + β. Every name is a state-dict key; None stands for an
    absent bias (0), γ (1) or β (0). ``axis`` is the output-channel axis of ``weight``: 0, but 1 for transposed
    convolutions, whose channels then lie in ``groups`` groups along axis 0.
    """

    part: Literal["weight", "bias"]
    weight: str
    bias: str | None
    gamma: str | None
    beta: str | None
    mean: str
    variance: str
    eps: float
    axis: int = 0
    groups: int = 1

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that this part carries."""
        weight = (self.weight, self.gamma, self.variance)
        bias = (self.bias, self.gamma, self.beta, self.mean, self.variance)
        names = weight if self.part == "weight" else bias
        return tuple(name for name in names if name is not None)


@dataclass(frozen=True)
class InitializerClaim:
    """How one initializer follows from the state dict.

    identical   the one tensor's bytes, element order and dims
    cast        the one tensor rounded to the initializer's dtype, same element order and dims
    transposed  the one tensor with its axes in the order ``perm``, then reshaped to the initializer's dims
    reshaped    the one tensor's bytes in the same element order under other dims
    arranged    elements of ``tensors`` placed by ``arrange``: sliced, expanded, gathered, concatenated, never computed
    folded      ``fold`` recomputed in float64; ``tensors`` is ``fold.tensors``; an optional ``perm`` is applied after
    constant    no tensor: the bytes are the same for all weights; ``sha256`` of the raw little-endian data, when known
    """

    kind: ClaimKind
    tensors: tuple[str, ...] = ()
    perm: tuple[int, ...] | None = None
    arrange: Arrangement | None = None
    fold: ConvBnFold | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        least, most = {"constant": (0, 0), "folded": (1, 5), "arranged": (1, None)}.get(self.kind, (1, 1))
        if len(self.tensors) < least or (most is not None and len(self.tensors) > most):
            raise ValueError(f"a claim of kind {self.kind} names {len(self.tensors)} tensors")
        if (self.kind == "folded") != (self.fold is not None) or (self.kind == "arranged") != (
            self.arrange is not None
        ):
            raise ValueError("a fold belongs to a folded claim and an arrangement to an arranged one, and to no other")
        if self.kind == "transposed" and self.perm is None:
            raise ValueError("a transposed claim gives its permutation")
