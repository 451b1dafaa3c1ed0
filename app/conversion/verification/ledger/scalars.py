"""Weights of one element that lost their names: a PReLU's slope, a temperature, the bias of a layer with one output.

Any constant may equal such a weight by chance, so its bytes alone say nothing. In the code of a TorchScript file it is
found by where it stands: there must be a place for every use that the forward makes of the weight, with its bytes or
those of the expression that is used, by the same kind of operator, and in the forward's order among all weights of one
element. A use that a fold has taken needs no place of its own.
"""

from collections.abc import Iterable, Set

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.books import Books
from app.conversion.verification.ledger.content import Corners, corners, is_floating, stored_corners
from app.conversion.verification.ledger.forward import EagerTrace, Use, Value
from app.conversion.verification.ledger.graph_uses import GraphUse, Place
from app.conversion.verification.ledger.order import Tokens, kind_of
from app.conversion.verification.ledger.values import ValueSearch


def match_scalars(
    books: Books,
    found: EagerTrace,
    search: ValueSearch,
    judged: Set[str],
    *,
    tokens: Tokens,
    graph: list[GraphUse],
) -> set[str]:
    """Enter the weights of one element all of whose uses have a place in the code; gives those that lack one.

    ``judged`` are those on which an earlier forward has decided. Other graphs go by other names of operators; there
    nothing is entered and nothing lacks.
    """
    wanted = _wanted(books, judged) if not any(at.counted for at in graph) else {}
    wholes = _numbers(graph, books)
    places: dict[str, list[GraphUse]] = {}
    lost: set[str] = set()
    end: Place = (-1, -1)
    for use in sorted(found.uses, key=lambda use: (use.turn, use.argument)):
        taken = [end]
        for name in _names(use.value, found, wanted) if use.turn not in tokens.folded else ():
            contents = wholes.get(wanted[name], set()) | _expressions(use.value, name, search)
            again = [at for at in places.get(name, ()) if at.repeats]
            place = _next((at for at in graph if at.stored in contents), use, end, again)
            if place is None:
                lost.add(name)
                continue
            taken.append(place.place)
            places.setdefault(name, []).append(place)
        end = max(taken)
    for name in places.keys() - lost:
        whole = wholes.get(wanted[name], set())
        for stored in dict.fromkeys(at.stored for at in places[name] if at.stored in whole):
            books.carry(stored, books.sources.by_name[name], "identical", "found by its place in the code")
            tokens.join(stored, found.leaf[name])
    return lost


def _wanted(books: Books, judged: Set[str]) -> dict[str, Corners]:
    values = {name: books.sources.by_name[name].value() for name in books.open_sources() if name not in judged}
    return {
        name: key
        for name, value in values.items()
        if value.numel() == 1 and (value.dtype.is_floating_point or value.dtype.is_complex) and (key := corners(value))
    }


def _numbers(graph: Iterable[GraphUse], books: Books) -> dict[Corners, set[StoredTensor]]:
    """Stored numbers without a key's name, by content."""
    found: dict[Corners, set[StoredTensor]] = {}
    for stored in {at.stored for at in graph}:
        alone = stored.numel == 1 and is_floating(stored) and stored.name not in books.sources.by_name
        key = stored_corners(stored) if alone else None
        if key is not None:
            found.setdefault(key, set()).add(stored)
    return found


def _names(value: Value, found: EagerTrace, wanted: Iterable[str]) -> Iterable[str]:
    """The wanted weights that a value came from, one for each parameter."""
    return {found.leaf[name]: name for name in sorted(value.lineage.intersection(wanted), reverse=True)}.values()


def _expressions(value: Value, name: str, search: ValueSearch) -> set[StoredTensor]:
    """Stored tensors that are the value, or one on its way from the weight."""
    if name not in value.lineage:
        return set()
    return set(search.matched.get(value, ())).union(*(_expressions(part, name, search) for part in value.inputs))


def _next(graph: Iterable[GraphUse], use: Use, end: Place, again: list[GraphUse]) -> GraphUse | None:
    """The first place behind the last one that was taken; one of ``again`` may be taken another time."""
    kind = kind_of(use.operator)
    fitting = (at for at in graph if kind_of(at.operator) == kind and (at.place > end or at in again))
    return min(fitting, key=lambda at: at.place, default=None)
