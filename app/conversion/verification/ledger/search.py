"""Finding what stored tensors carry when no name and no claim says it.

In this order, each step only for what the ones before left open: the content of one tensor, in any order of its axes;
an operand of a recurrent layer; several equal tensors stored once; and, after what a trace of the eager forward tells
(ledger/values.py, ledger/fold_sites.py), the parts of one tensor.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.books import Books
from app.conversion.verification.ledger.constants import is_fill
from app.conversion.verification.ledger.content import (
    ONNX_DTYPES,
    Corners,
    corners,
    matching_axes,
    same_dtype,
    speaks,
    stored_corners,
)
from app.conversion.verification.ledger.folds import recurrent_operands
from app.conversion.verification.ledger.graph_uses import GraphUse
from app.conversion.verification.ledger.sources import raw_bytes, same_bytes
from app.domain.report import LedgerClass


def match_content(books: Books, unnamed: Iterable[StoredTensor]) -> None:
    """Enter stored tensors that hold one source's elements. Equal sources are all carried by it."""
    index: dict[Corners, list[str]] = {}
    for name, source in books.sources.by_name.items():
        key = corners(source.value()) if source.name == name else None
        if key is not None:
            index.setdefault(key, []).append(name)
    for stored in unnamed:
        key = stored_corners(stored)
        for name in index.get(key, ()) if key is not None and speaks(stored) else ():
            source = books.sources.by_name[name]
            axes = matching_axes(stored, source.value())
            if axes is not None:
                straight = axes == tuple(range(len(axes)))
                how: LedgerClass = "identical" if straight else "transposed"
                books.carry(stored, source, how, None if straight else f"axes {axes}", axes)


def match_shared(books: Books) -> None:
    """Enter tensors whose equal bytes are stored once: exporters keep one of several equal initializers."""
    index: dict[Corners, list[StoredTensor]] = {}
    for carriers in books.carriers.values():
        for carrier in carriers:
            key = stored_corners(carrier.stored)
            if key is not None and carrier.stored not in index.get(key, []):
                index.setdefault(key, []).append(carrier.stored)
    for name in books.open_sources():
        source = books.sources.by_name[name]
        value = source.value()
        key = corners(value)
        for stored in index.get(key, ()) if key is not None else ():
            if stored.dims == tuple(value.shape) and same_bytes(raw_bytes(value), stored.data):
                books.carry(
                    stored, source, "identical", f"equal to {stored.name}, stored once", tuple(range(value.ndim))
                )
                break


def match_slopes(books: Books, uses: Iterable[GraphUse]) -> None:
    """Enter single numbers that are the slope of a PRelu, which no constant of a graph is."""
    consumers: dict[StoredTensor, set[tuple[str, int]]] = {}
    for use in uses:
        consumers.setdefault(use.stored, set()).add((use.operator, use.argument))
    names = books.open_sources()
    for stored in books.unexplained():
        if stored.numel != 1 or stored.name in books.sources.by_name or consumers.get(stored) != {("PRelu", 1)}:
            continue
        for name in names:
            source = books.sources.by_name[name]
            if same_dtype(stored, source.dtype) and same_bytes(raw_bytes(source.value()), stored.data):
                books.carry(stored, source, "identical", f"as {stored.dims}")


Part = tuple[str, int, int]
"""A key, into how many equal parts its first axis is cut, and which of them."""
_MOST_PARTS = 8


def match_parts(books: Books) -> dict[StoredTensor, list[Part]]:
    """Enter stored tensors that hold an equal part of one source's first axis, such as q, k or v of a projection.

    One number repeated is a part of everything that holds it, and proves none of them.
    A source all of whose parts are found is carried by them.
    """
    found: dict[StoredTensor, list[Part]] = {}
    present: dict[tuple[str, int], dict[int, StoredTensor]] = {}
    for stored in books.unexplained():
        if not speaks(stored) or is_fill(stored) or stored.name in books.sources.by_name:
            continue
        for part, axes in _parts_held(books, stored):
            name, count, position = part
            found.setdefault(stored, []).append(part)
            present.setdefault((name, count), {})[position] = stored
            detail = f"part {position + 1} of {count} of {name}{'' if axes is None else f', axes {axes}'}"
            books.explain(stored, "tensor", (name,), detail)
    for (name, count), parts in present.items():
        if len(parts) == count and name not in books.carriers:
            for stored in parts.values():
                books.carry(stored, books.sources.by_name[name], "transposed", f"in {count} parts")
    return found


def _parts_held(books: Books, stored: StoredTensor) -> Iterable[tuple[Part, tuple[int, ...] | None]]:
    key = stored_corners(stored)
    for name, source in books.sources.by_name.items():
        count, rest = divmod(source.tensor.numel(), stored.numel)
        tensor = source.tensor
        if rest or not 1 < count <= _MOST_PARTS or tensor.shape[0] % count or not same_dtype(stored, source.dtype):
            continue
        for position, piece in enumerate(source.value().chunk(count)):
            axes = matching_axes(stored, piece) if corners(piece) == key else None
            if axes is not None:
                yield (name, count, position), None if axes == tuple(range(len(axes))) else axes


def match_recurrent(books: Books, module: nn.Module, uses: list[GraphUse]) -> dict[StoredTensor, str]:
    """Enter operands of LSTM, GRU and RNN operators; gives, for each, the first tensor it is made of."""
    open_ = set(books.unexplained())
    consumers = {use.stored: (use.operator, use.argument) for use in uses}
    leads: dict[StoredTensor, str] = {}
    for operand in recurrent_operands(module):
        value: Tensor | None = None
        for stored in open_:
            if consumers.get(stored) != (operand.operator, operand.position) or stored.dims != operand.dims:
                continue
            value = operand.value(books.sources.value) if value is None else value
            if ONNX_DTYPES.get(stored.data_type) == value.dtype and matching_axes(stored, value) == tuple(
                range(value.ndim)
            ):
                detail = f"gates of {operand.module or 'the module'} in the order of {operand.operator}"
                books.explain(stored, "fold", operand.tensors, detail)
                books.fold(operand.tensors, stored, f"gates reordered for {operand.operator}, same bytes", whole=True)
                leads[stored] = operand.tensors[0]
    return leads
