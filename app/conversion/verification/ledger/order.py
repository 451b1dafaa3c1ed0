"""Position: whether stored tensors are used where the architecture uses what they carry.

Two tensors of one shape swapped between layers leave every byte in the file. A stored tensor under a state-dict key's
name is held to that key. Where an exporter renamed, the order of use decides: both exporters translate operators in
the order in which the forward runs them, and optimisers keep a graph's order but for what they remove. So, among
tensors of one size, the order of first use in the graph must be the order of first use in the eager forward; and what
one content is used for in the forward, be it one tensor or several equal ones, must all be there in the graph.
Where a tensor is used more than once (a shared layer, a branch), some choice of its uses must give that order. The
code of a TorchScript file names the same operators as the eager forward, so there the uses must be by the same kind,
and all of them must be there in their order, but for those in loops.

What this cannot see: a swap of tensors with equal bytes (no fault), of two operands that one eager operator takes (but
for recurrent layers) and the graph spreads over several nodes, and, in ONNX and in loops, of later uses of a tensor
used twice. Those are left to parity.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.content import is_floating
from app.conversion.verification.ledger.forward import Use, Value
from app.conversion.verification.ledger.graph_uses import GraphUse, Place


class Tokens:
    """Which values of the eager forward are the same content: all that one stored tensor may carry."""

    def __init__(self) -> None:
        self._parent: dict[Value, Value] = {}
        self._of: dict[StoredTensor, Value] = {}
        self._parts: dict[Value, list[Value]] = {}
        self.moved: set[Value] = set()
        """Values that a fold has taken into another operator."""
        self.folded: set[int] = set()
        """Turns of the operators that are in a fold: what else they take need not be in the graph."""

    def part(self, whole: Value) -> Value:
        """A new value for a piece of ``whole``, used wherever that is used."""
        piece = Value(whole.lineage, (whole,))
        self._parts.setdefault(whole, []).append(piece)
        return piece

    def join(self, stored: StoredTensor, value: Value) -> None:
        self._parent.setdefault(value, value)
        if stored in self._of:
            self._parent[self.root(self._of[stored])] = self.root(value)
        else:
            self._of[stored] = value

    def root(self, value: Value) -> Value:
        while self._parent[value] is not value:
            value = self._parent[value]
        return value

    def of_stored(self, stored: StoredTensor) -> Value | None:
        return self.root(self._of[stored]) if stored in self._of else None

    def of_value(self, value: Value) -> Iterator[tuple[Value, Value]]:
        """(root, value) of the value, or else of the values it came from; and of their pieces."""
        pending, seen = [value], {value}
        while pending:
            value = pending.pop()
            for piece in self._parts.get(value, ()):
                yield self.root(piece), piece
            if value in self._parent:
                yield self.root(value), value
                continue
            further = [part for part in value.inputs if part.lineage and part not in seen]
            seen.update(further)
            pending += reversed(further)


_Turn = tuple[Place, int]
"""What decides the order of two uses, and the argument, which decides within one node only."""
_LAYERED = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""Operators that run several layers one after the other, their tensors in that order."""


def _turn(use: Use) -> _Turn:
    return (use.turn, use.argument if use.operator in _LAYERED else 0), use.argument


@dataclass(eq=False)
class Track:
    """One content on both sides: its uses in the forward, what of it they take and by which kinds, its uses in the
    graph."""

    eager: list[Use] = field(default_factory=list)
    values: set[Value] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    uses: list[GraphUse] = field(default_factory=list)

    @property
    def turn(self) -> _Turn:
        return _turn(self.eager[0])

    @property
    def numel(self) -> int:
        return self.uses[0].stored.numel

    def computations(self) -> list[Use]:
        """The first of the uses that compute the same: a graph need make that but once."""
        first: dict[tuple[int, int], Use] = {}
        for use in self.eager:
            first.setdefault((use.computation, use.argument), use)
        return list(first.values())

    def places(self) -> list[Place]:
        return sorted({at.place for at in self.uses})


def misplaced(tracks: list[Track], eager: list[Use]) -> list[str]:
    """What is used out of order or too seldom, in words; empty when positions hold."""
    known = {kind_of(use.operator) for use in eager}
    by_size: dict[int, list[Track]] = {}
    for track in tracks:
        by_size.setdefault(track.numel, []).append(track)
    culprits = [_first_out_of_order(group, known) for group in by_size.values()]
    found = [f"{name} is not used where the model uses what it carries" for name in culprits if name is not None]
    return found + [problem for track in tracks if (problem := _too_seldom(track)) is not None]


def _too_seldom(track: Track) -> str | None:
    """Whether some of the forward's uses have nothing in the graph that could be theirs.

    A graph has a use for each of the forward's computations. Code may use a constant by way of a variable, and the body
    of a loop runs more than once; there it is only demanded that equal tensors are used as often as there are of them.
    """
    lineages = {value.lineage for value in track.values}
    wanted = len(track.computations()) if all(at.counted for at in track.uses) else len(lineages)
    times = len(track.places())
    if times >= wanted or not is_floating(track.uses[0].stored):
        return None
    names = ", ".join(sorted(min(lineage) for lineage in lineages))
    return f"the model uses {names} {wanted} times, but the artifact {times} times"


def tracks_of(tokens: Tokens, eager: list[Use], graph: list[GraphUse]) -> list[Track]:
    """Every content that both sides use, in the order of the forward's first use. Added zeros are no use of it."""
    tracks: dict[Value, Track] = {}
    for use in eager:
        if use.zeros:
            continue
        for root, value in tokens.of_value(use.value):
            if use.turn in tokens.folded and value not in tokens.moved:
                continue
            track = tracks.setdefault(root, Track())
            track.eager.append(use)
            track.values.add(value)
            direct = value is use.value and value not in tokens.moved
            track.kinds.add(kind_of(use.operator) if direct else _ANY_KIND)
    for at in graph:
        token = tokens.of_stored(at.stored)
        if token is not None and token in tracks:
            tracks[token].uses.append(at)
    return sorted((track for track in tracks.values() if track.uses), key=lambda track: track.turn)


_ANY_KIND = "any"
"""Of a tensor that meets the inputs through other operators on weights, or that a fold moved."""


_TURNED = {"gt": "lt", "ge": "le", "greater": "lt", "less": "lt", "rsub": "sub"}
"""Operators that differ only in the order of their operands."""


def kind_of(operator: str) -> str:
    """Operators that exporters of TorchScript put in each other's place, under one name."""
    name = operator.rstrip("_")
    if name.startswith("conv"):
        return "conv"
    if name in {"linear", "matmul", "mm", "bmm", "addmm", "add"} or name.endswith("_cell"):
        return "linear"
    return _TURNED.get(name, name)


def _fitting(track: Track, known: set[str]) -> list[Place]:
    """Places of the kinds by which the forward uses it; all, where the graph's operators go by other names."""
    named = [at for at in track.uses if kind_of(at.operator) in known]
    if named and _ANY_KIND not in track.kinds:
        return [at.place for at in named if kind_of(at.operator) in track.kinds]
    return [at.place for at in track.uses]


def _first_out_of_order(group: list[Track], known: set[str]) -> str | None:
    """The first stored tensor for which no place is left after those of earlier turns; None when all find one.

    ``group`` is in the forward's order. A tensor may be used at several places (shared layers, alternative branches);
    the earliest that fits is the best choice for all that follow. Those of one turn may come in any order unless one
    node takes them.
    """
    end: Place = (-1, -1)
    chosen: list[tuple[Place, Place]] = []
    for (turn, _), track in sorted(_demanded(group), key=lambda demand: demand[0]):
        if chosen and turn != chosen[-1][0]:
            end = max(end, *(place for _, place in chosen))
            chosen = []
        before = {other[0]: other for _, other in sorted(chosen)}
        fitting = (place for place in _fitting(track, known) if end < place > before.get(place[0], end))
        place = min(fitting, default=None)
        if place is None:
            return track.uses[0].stored.name
        chosen.append((turn, place))
    return None


def _demanded(group: list[Track]) -> Iterator[tuple[_Turn, Track]]:
    """The turns that must find a place: the first of each track, and in code without a loop around it all of them."""
    for track in group:
        straight = not any(at.counted or at.repeats for at in track.uses) and _ANY_KIND not in track.kinds
        yield from ((turn, track) for turn in ({_turn(use) for use in track.eager} if straight else {track.turn}))
