"""Weights of one element that lost their names: a PReLU's slope, a temperature, the bias of a layer with one output.

Any constant may equal such a weight by chance, so its bytes alone say nothing. In the code of a TorchScript file it is
found by where it stands: there must be a place for every use that the forward makes of the weight, with its bytes, by
the same kind of operator, and in the forward's order among all weights of one element. A use that a fold has taken, or
that arrived through an expression of weights, needs no place of its own.
"""

from collections.abc import Iterable, Iterator

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.books import Books
from app.conversion.verification.ledger.content import Corners, corners, is_floating, stored_corners
from app.conversion.verification.ledger.forward import EagerTrace, FoldSite, Use, Value
from app.conversion.verification.ledger.order import GraphUse, Tokens, kind_of
from app.conversion.verification.ledger.values import ValueSearch

_Place = tuple[int, int]


def match_scalars(
    books: Books,
    found: EagerTrace,
    search: ValueSearch,
    folded: Iterable[FoldSite],
    *,
    tokens: Tokens,
    graph: list[GraphUse],
) -> None:
    """Enter the weights of one element all of whose uses have a place in the code."""
    wanted = _wanted(books)
    by_content = _places(books, graph)
    folded_turns = {turn for site in folded for turn in site.turns}
    held: dict[str, list[StoredTensor]] = {}
    lost: set[str] = set()
    end: _Place = (-1, -1)
    for use, name in _uses(found, search, wanted, folded_turns):
        place = _next(by_content.get(wanted[name], ()), use, end)
        if place is None:
            lost.add(name)
            continue
        end = max(end, _at(place))
        held.setdefault(name, []).append(place.stored)
    for name in held.keys() - lost:
        for stored in dict.fromkeys(held[name]):
            books.carry(stored, books.sources.by_name[name], "identical", "found by its place in the code")
            tokens.join(stored, found.leaf[name])


def _wanted(books: Books) -> dict[str, Corners]:
    values = {name: books.sources.by_name[name].value() for name in books.open_sources()}
    return {
        name: key
        for name, value in values.items()
        if value.numel() == 1 and value.dtype.is_floating_point | value.dtype.is_complex and (key := corners(value))
    }


def _places(books: Books, graph: list[GraphUse]) -> dict[Corners, list[GraphUse]]:
    """Uses of stored numbers without a key's name, by content, in the order of the code."""
    places: dict[Corners, list[GraphUse]] = {}
    for at in sorted(graph, key=_at):
        alone = at.stored.numel == 1 and is_floating(at.stored) and at.stored.name not in books.sources.by_name
        key = stored_corners(at.stored) if alone else None
        if key is not None:
            places.setdefault(key, []).append(at)
    return places


def _uses(
    found: EagerTrace, search: ValueSearch, wanted: Iterable[str], folded_turns: set[int]
) -> Iterator[tuple[Use, str]]:
    """The forward's uses that need a place, in its order."""
    for use in sorted(found.uses, key=lambda use: (use.turn, use.argument)):
        tied = {found.leaf[name]: name for name in sorted(use.value.lineage.intersection(wanted), reverse=True)}
        for name in tied.values():
            if use.turn not in folded_turns and not _arrived(use.value, name, search):
                yield use, name


def _arrived(value: Value, name: str, search: ValueSearch) -> bool:
    """Whether everything that the value has of the weight came in expressions that were found."""
    if name not in value.lineage or value in search.matched:
        return True
    return bool(value.inputs) and all(_arrived(part, name, search) for part in value.inputs)


def _next(places: Iterable[GraphUse], use: Use, end: _Place) -> GraphUse | None:
    """The first place behind the last one that was taken; one in the body of a loop may be taken again."""
    kind = kind_of(use.operator)
    return next((at for at in places if kind_of(at.operator) == kind and (_at(at) > end or at.repeats)), None)


def _at(use: GraphUse) -> _Place:
    return use.node, use.argument
