"""Position: whether stored tensors are used where the architecture uses what they carry.

Two tensors of one shape swapped between layers leave every byte in the file. A stored tensor under a state-dict key's
name is held to that key. Where an exporter renamed, the order of use decides: both exporters translate operators in
the order in which the forward runs them, and optimisers keep a graph's order but for what they remove. So, among
tensors of one size, the order of first use in the graph must be the order of first use in the eager forward; and
equal contents, which may share one stored tensor, must be used at least as often as the forward has tensors of them.
Where a tensor is used more than once (a shared layer, a branch), some choice of its uses must give that order.

What this cannot see: a swap of tensors with equal bytes (no fault), of two operands that a single eager operator takes
and the graph spreads over several nodes, and of later uses of a tensor used twice. Those are left to parity.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.conversion.verification.ledger_trace import Use, Value
from app.conversion.verification.onnx_tensors import OnnxFile, StoredGraph, StoredTensor


@dataclass(frozen=True)
class GraphUse:
    """One place where a stored tensor meets the graph's inputs: node in graph order, argument, what arrives there."""

    node: int
    argument: int
    operator: str
    stored: StoredTensor


_Roots = tuple[StoredTensor, ...]


def graph_uses(file: OnnxFile) -> list[GraphUse]:
    """Uses in graph order, followed through nodes that depend on stored tensors alone (Transpose, Concat, ...)."""
    walk = _Walk()
    walk.graph(file.graph, {})
    return walk.uses


class _Walk:
    def __init__(self) -> None:
        self.uses: list[GraphUse] = []
        self.node = 0

    def graph(self, graph: StoredGraph, outer: Mapping[str, _Roots]) -> None:
        """``known`` maps each weight-only value in scope to the stored tensors it came from."""
        known = dict(outer)
        for name in graph.inputs:
            known.pop(name, None)
        known |= {stored.name: (stored,) for stored in graph.initializers}
        for node in graph.nodes:
            self.node += 1
            named = [name for name in node.inputs if name]
            if not node.subgraphs and all(name in known for name in named):
                roots = tuple(dict.fromkeys(root for name in named for root in known[name])) + node.tensors
                known |= dict.fromkeys(node.outputs, roots)
                continue
            for position, name in enumerate(node.inputs):
                for root in known.get(name, ()):
                    self.uses.append(GraphUse(self.node, position, node.op_type, root))
            for stored in node.tensors:
                self.uses.append(GraphUse(self.node, len(node.inputs), node.op_type, stored))
            for subgraph in node.subgraphs:
                self.graph(subgraph, known)
        for position, name in enumerate(graph.outputs):
            for root in known.get(name, ()):
                self.uses.append(GraphUse(self.node + 1, position, "output", root))


class Tokens:
    """Which values of the eager forward are the same content: all that one stored tensor may carry."""

    def __init__(self) -> None:
        self._parent: dict[Value, Value] = {}
        self._of: dict[StoredTensor, Value] = {}
        self._parts: dict[Value, list[Value]] = {}

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
        """(root, value) of the value, or else of the values it came from; and of its pieces."""
        for piece in self._parts.get(value, ()):
            yield self.root(piece), piece
        if value in self._parent:
            yield self.root(value), value
            return
        for part in value.inputs:
            yield from self.of_value(part)

    @property
    def stored(self) -> tuple[StoredTensor, ...]:
        return tuple(self._of)


_Place = tuple[int, int]
"""Turn or node, and argument."""


def misplaced(tokens: Tokens, eager: list[Use], graph: list[GraphUse]) -> list[str]:
    """What is used out of order or too seldom, in words; empty when positions hold."""
    turns: dict[Value, _Place] = {}
    originals: dict[Value, set[Value]] = {}
    for use in eager:
        for root, value in tokens.of_value(use.value):
            turns.setdefault(root, (use.turn, use.argument))
            originals.setdefault(root, set()).add(value)
    places: dict[Value, list[_Place]] = {}
    sample: dict[Value, StoredTensor] = {}
    for at in graph:
        token = tokens.of_stored(at.stored)
        if token is not None and token in turns:
            places.setdefault(token, []).append((at.node, at.argument))
            sample.setdefault(token, at.stored)
    by_size: dict[int, list[Value]] = {}
    for token, stored in sample.items():
        by_size.setdefault(stored.numel, []).append(token)
    found = []
    for group in by_size.values():
        group.sort(key=turns.__getitem__)
        culprit = _first_out_of_order(group, turns, places)
        if culprit is not None:
            found.append(f"{sample[culprit].name} is not used where the model uses what it carries")
    for token, at_places in places.items():
        lineages = {value.lineage for value in originals[token] if value.lineage}
        if len(set(at_places)) < len(lineages):
            names = ", ".join(sorted(min(lineage) for lineage in lineages))
            found.append(f"{names} hold equal bytes, but are used {len(set(at_places))} times in all")
    return found


def _first_out_of_order(
    group: list[Value], turns: Mapping[Value, _Place], places: Mapping[Value, list[_Place]]
) -> Value | None:
    """The first token for which no place is left after those of earlier turns; None when all find one.

    A tensor may be used at several places (shared layers, alternative branches); the earliest that fits is the best
    choice for all that follow. Tokens of one turn may come in any order unless one node takes them.
    """
    end: _Place = (-1, -1)
    chosen: list[tuple[int, _Place]] = []
    for token in group:
        turn = turns[token][0]
        if chosen and turn != chosen[-1][0]:
            end = max(place for _, place in chosen)
            chosen = []
        place = min((place for place in places[token] if place > end), default=None)
        if place is None or any(place < other and place[0] == other[0] for _, other in chosen):
            return token
        chosen.append((turn, place))
    return None
