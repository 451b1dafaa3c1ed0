"""What an eager forward did with the architecture's tensors, as ledger_trace.py saw it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from app.conversion.verification.claims import ConvBnFold


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the forward that no input has touched. ``lineage`` are the state-dict keys and buffers it came from.

    A value without ``inputs`` is such a tensor itself, or a constant when its lineage is empty too. ``formula``
    evaluates it again from float64 copies of what it came from; None when an operator wrote in place.
    """

    lineage: frozenset[str]
    inputs: tuple["Value", ...] = ()
    formula: Callable[[], Tensor] | None = None
    arithmetic: bool = False
    """Whether an operator computed new numbers, so that another implementation may round otherwise."""


@dataclass(frozen=True)
class Use:
    """One place where a weight-only value meets the inputs: the operator's turn and the argument's position."""

    turn: int
    argument: int
    operator: str
    value: Value


@dataclass(frozen=True)
class FoldSite:
    """A batch norm that directly follows a convolution or linear layer, and the turns of both."""

    fold: ConvBnFold
    layer_turn: int
    norm_turn: int


@dataclass(eq=False)
class EagerTrace:
    """The uses in execution order, the keys reached, where a batch norm follows a layer, and each key's own value."""

    leaf: Mapping[str, Value]
    uses: list[Use] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)
    sites: list[FoldSite] = field(default_factory=list)


Offer = Callable[[Tensor, Value], None]
"""Called with every weight-only tensor at the moment it exists."""
