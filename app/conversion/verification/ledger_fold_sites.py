"""Finding the batch norms that an exporter folded into the layer before them."""

from collections.abc import Mapping
from dataclasses import replace

from app.conversion.verification.claims import ConvBnFold
from app.conversion.verification.ledger_books import Books
from app.conversion.verification.ledger_content import ONNX_DTYPES, first_and_last, is_floating
from app.conversion.verification.ledger_folds import carries, conv_bn
from app.conversion.verification.ledger_forward import EagerTrace, FoldSite
from app.conversion.verification.ledger_order import GraphUse, Tokens
from app.conversion.verification.onnx_tensors import StoredTensor


def match_folds(books: Books, trace: EagerTrace, tokens: Tokens, uses: list[GraphUse]) -> set[FoldSite]:
    """Enter batch norms folded into the layer before them; gives the sites whose weight and bias were both found."""
    by_size: dict[int, list[StoredTensor]] = {}
    for stored in books.unexplained():
        if is_floating(stored) and stored.data_type in ONNX_DTYPES:
            by_size.setdefault(stored.numel, []).append(stored)
    together = _operands_together(uses)
    found: set[FoldSite] = set()
    for site in trace.sites:
        fold = site.fold
        weights = _matching(books, by_size, fold, {fold.weight})
        if not weights:
            continue
        beside = {stored for weight in weights for stored in together.get(weight, ())}
        bias = replace(fold, part="bias")
        biases = [stored for stored in _matching(books, by_size, bias, {fold.bias, fold.beta}) if stored in beside]
        if not biases:
            continue
        found.add(site)
        for part, matches, lead in ((fold, weights, fold.weight), (bias, biases, fold.mean)):
            for stored in matches:
                _enter(books, stored, part)
                tokens.join(stored, trace.leaf[lead])
                tokens.moved.add(trace.leaf[lead])
    return found


def _operands_together(uses: list[GraphUse]) -> Mapping[StoredTensor, set[StoredTensor]]:
    """For each stored tensor, those that meet the inputs at the same node."""
    at: dict[int, set[StoredTensor]] = {}
    for use in uses:
        at.setdefault(use.node, set()).add(use.stored)
    beside: dict[StoredTensor, set[StoredTensor]] = {}
    for use in uses:
        beside.setdefault(use.stored, set()).update(at[use.node])
    return beside


def _matching(
    books: Books, by_size: Mapping[int, list[StoredTensor]], fold: ConvBnFold, names: set[str | None]
) -> list[StoredTensor]:
    """Stored tensors that are the fold's part. One with a state-dict key's name must have one of ``names``."""
    weight = books.sources.by_name[fold.weight].tensor
    channels = books.sources.by_name[fold.mean].tensor.numel()
    shape = tuple(weight.shape) if fold.part == "weight" else (channels,)
    size = weight.numel() if fold.part == "weight" else channels
    folded = None
    found = []
    for stored in by_size.get(size, ()):
        if stored.name in books.sources.by_name and stored.name not in names:
            continue
        if folded is None:
            folded = conv_bn(fold, books.sources.value, ONNX_DTYPES[stored.data_type])
        first, last = first_and_last(stored)
        ends = folded.value.reshape(-1)[[0, -1]].tolist()
        margin = folded.bound.reshape(-1)[[0, -1]].tolist()
        if abs(first - ends[0]) > margin[0] or abs(last - ends[1]) > margin[1]:
            continue
        axes = None if _long(stored.dims) == _long(shape) else tuple(reversed(range(len(shape))))
        if carries(stored, folded, axes) is not None:
            found.append(stored)
    return found


def _long(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size > 1]


def _enter(books: Books, stored: StoredTensor, fold: ConvBnFold) -> None:
    books.explain(stored, "fold", fold.tensors, f"{fold.part} of {fold.weight} with the batch norm that follows it")
    books.fold(fold.tensors, stored, "batch norm folded, recomputed in float64")
