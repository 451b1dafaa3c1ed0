"""What an eager forward did with the architecture's tensors, as ledger/trace.py saw it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from app.conversion.verification.ledger.formula import Formula


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the forward that no input has touched. ``lineage`` are the state-dict keys and buffers it came from.

    A value without ``inputs`` is such a tensor itself, or a constant when its lineage is empty too. ``formula``
    evaluates it again (ledger/formula.py); None when an operator wrote in place.
    """

    lineage: frozenset[str]
    inputs: tuple["Value", ...] = ()
    formula: Formula | None = None
    arithmetic: bool = False
    """Whether an operator computed new numbers, so that another implementation may round otherwise."""


@dataclass(frozen=True)
class Use:
    """One place where a weight-only value meets the inputs: the operator's turn and the argument's position.

    ``computation`` is the number of what the operator computes (ledger/computations.py). ``zeros`` counts the elements
    of a value that adds zeros and nothing else, which an exporter may leave out; 0 for every other.
    """

    turn: int
    argument: int
    operator: str
    value: Value
    computation: int
    zeros: int = 0


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer and its weight-only operands. ``axis`` and ``groups`` as in ConvBnFold."""

    turn: int
    weight: Value
    bias: Value | None
    axis: int
    groups: int


@dataclass(frozen=True)
class NormKeys:
    """The keys of a batch norm's tensors, None where it has none, and its ε."""

    gamma: str | None
    beta: str | None
    mean: str
    variance: str
    eps: float


@dataclass(frozen=True, eq=False)
class ChannelStep:
    """What follows a layer channel by channel: a batch norm, or mul, div, add or sub with a weight-only ``value``."""

    turn: int
    operator: str
    norm: NormKeys | None = None
    value: Value | None = None


@dataclass(frozen=True, eq=False)
class FoldSite:
    """A layer and steps that directly follow it, which an exporter may fold into it."""

    layer: Layer
    steps: tuple[ChannelStep, ...]

    @property
    def turns(self) -> tuple[int, ...]:
        return (self.layer.turn, *(step.turn for step in self.steps))


@dataclass(frozen=True, eq=False)
class Data:
    """A value that depends on the inputs. ``site`` while only channel steps have changed it since a layer."""

    site: FoldSite | None = None
    influences: int = 0
    """The turns at which weight-only values came into it, one bit for each."""


@dataclass(eq=False)
class EagerTrace:
    """The uses in execution order, the keys reached, what follows layers, and each key's own value."""

    leaf: Mapping[str, Value]
    uses: list[Use] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)
    sites: list[FoldSite] = field(default_factory=list)
    constant: list[bool] = field(default_factory=list)
    """Of each tensor that the forward returns, whether no value of an input has come into it."""


Offer = Callable[[Tensor, Value], None]
"""Called with every weight-only tensor at the moment it exists."""


def unheard(tensor: Tensor, value: Value) -> None:
    """Receives offers that nobody waits for."""
