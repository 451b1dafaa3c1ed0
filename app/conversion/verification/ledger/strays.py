"""What stands where a graph may do without the tensor that the forward has there.

A graph may use a tensor less often than the forward does: what the forward computes twice is computed once, and zeros
that are only added are left out. Neither may excuse that another tensor of that size took the place. So where the
forward has either, no tensor of the size may be used at such places more often than the forward uses it, no constant
may be there that is not the architecture's zero, and what is added must come after the weight of its own layer and
before those of later ones. Numbers repeated along an axis by the operator itself have another size, and are parity's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.content import ONNX_DTYPES, as_tensor, is_floating
from app.conversion.verification.ledger.forward import Use, Value
from app.conversion.verification.ledger.graph_uses import GraphUse, Place
from app.conversion.verification.ledger.operators import is_layer
from app.conversion.verification.ledger.order import Tokens, Track

_Spots = frozenset[tuple[str, int]]
"""Operators and arguments."""

_ADDING: _Spots = frozenset(
    {("Add", 0), ("Add", 1), ("Sub", 1), ("Gemm", 2), ("Conv", 2), ("ConvTranspose", 2)}
    | {("LayerNormalization", 2), ("InstanceNormalization", 2), ("GroupNormalization", 2), ("BatchNormalization", 2)}
)
"""Where a graph adds one tensor to a result."""


def strays(tokens: Tokens, tracks: list[Track], eager: list[Use], graph: list[GraphUse]) -> list[str]:
    """Stored tensors that are somewhere in the place of others, in words. ``tracks`` leave out what adds zeros."""
    known = _Known(tokens, {tokens.of_stored(track.uses[0].stored): track for track in tracks}, eager, graph)
    found: dict[StoredTensor, None] = {}
    for track in tracks:
        turns = {(use.turn, use.argument) for use in track.eager}
        if all(at.counted for at in track.uses) and len(track.places()) < len(turns):
            spots = frozenset((at.operator, at.argument) for at in track.uses)
            found |= dict.fromkeys(known.intruders(track.numel, spots))
    for numel in sorted({use.zeros for use in eager if use.zeros}):
        added = (*known.intruders(numel, _ADDING), *_beside_another_layer(numel, tracks))
        found |= dict.fromkeys(stored for stored in added if not _is_zero(stored))
    return [f"{stored.name} is used where the model uses something else" for stored in found]


@dataclass(frozen=True)
class _Known:
    tokens: Tokens
    tracks: Mapping[Value | None, Track]
    eager: list[Use]
    graph: list[GraphUse]

    def intruders(self, numel: int, spots: _Spots) -> Iterator[StoredTensor]:
        """Tensors of that size that are used at such places more often than the forward uses them."""
        for at in self._at(numel, spots):
            track = self.tracks.get(self.tokens.of_stored(at.stored))
            allowed = len({(use.turn, use.argument) for use in track.eager}) if track is not None else 0
            if _is_zero(at.stored) and (at.operator, at.argument) in _ADDING:
                allowed += sum(use.zeros > 0 for use in self.eager)  # zeros of this size may be there in parts
            places = track.places() if track is not None else self._places(at.stored)
            if len(places) > allowed:
                yield at.stored

    def _at(self, numel: int, spots: _Spots) -> Iterator[GraphUse]:
        for at in self.graph:
            if at.stored.numel == numel and (at.operator, at.argument) in spots and is_floating(at.stored):
                yield at

    def _places(self, stored: StoredTensor) -> set[Place]:
        return {at.place for at in self.graph if at.stored is stored}


def _is_zero(stored: StoredTensor) -> bool:
    return stored.data_type in ONNX_DTYPES and not bool(as_tensor(stored).any())


def _beside_another_layer(numel: int, tracks: list[Track]) -> Iterator[StoredTensor]:
    """Tensors that are added on the wrong side of a layer's weight."""
    weights = [pair for track in tracks for pair in _paired(track) if _is_weight(pair[0])]
    for track in tracks:
        if track.numel != numel or not any((at.operator, at.argument) in _ADDING for at in track.uses):
            continue
        for use, place in _paired(track):
            if any((weight.turn <= use.turn) != (where < place) for weight, where in weights if weight is not use):
                yield track.uses[0].stored


def _paired(track: Track) -> list[tuple[Use, Place]]:
    """The forward's uses with those of the graph, where there are as many."""
    computations, places = track.computations(), track.places()
    return list(zip(computations, places, strict=True)) if len(computations) == len(places) else []


def _is_weight(use: Use) -> bool:
    return is_layer(use.operator) and use.argument == (2 if use.operator == "addmm" else 1)
