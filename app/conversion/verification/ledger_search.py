"""Finding what stored tensors carry when no name and no claim says it.

In this order, each step only for what the ones before left open: the content of one tensor, in any order of its axes;
an operand of a recurrent layer; then, with a trace of the eager forward, a batch norm folded into the layer before it,
and any weight-only value of the forward.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from app.conversion.verification.claims import ConvBnFold
from app.conversion.verification.ledger_books import Books
from app.conversion.verification.ledger_content import (
    ONNX_DTYPES,
    Corners,
    as_tensor,
    corners,
    is_floating,
    matching_axes,
    same_dtype,
    speaks,
    stored_corners,
)
from app.conversion.verification.ledger_folds import carries, conv_bn, first_and_last, recurrent_operands
from app.conversion.verification.ledger_order import GraphUse, Tokens
from app.conversion.verification.ledger_sources import raw_bytes, same_bytes
from app.conversion.verification.ledger_trace import EagerTrace, FoldSite, Use, Value
from app.conversion.verification.onnx_tensors import StoredTensor
from app.domain.report import LedgerClass

K = 8
"""How many times torch's own rounding error a recomputed expression may be off; as in the gate of parity."""
C = 4
_NEAR = 1e-2
"""Relative difference of the first and last element up to which an expression is recomputed in float64."""


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


Part = tuple[str, int, int]
"""A key, into how many equal parts its first axis is cut, and which of them."""
_MOST_PARTS = 8


def match_parts(books: Books) -> dict[StoredTensor, list[Part]]:
    """Enter stored tensors that hold an equal part of one source's first axis, such as q, k or v of a projection.

    A source all of whose parts are found is carried by them.
    """
    found: dict[StoredTensor, list[Part]] = {}
    present: dict[tuple[str, int], dict[int, StoredTensor]] = {}
    for stored in books.unexplained():
        if not speaks(stored) or stored.name in books.sources.by_name:
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


@dataclass(eq=False)
class _Wanted:
    stored: StoredTensor
    key: Corners
    ends: tuple[float, float]


class ValueSearch:
    """Compares weight-only values, while they exist, with the stored tensors that are still unexplained."""

    def __init__(self, books: Books, tokens: Tokens) -> None:
        self.books = books
        self.tokens = tokens
        self.matched: dict[Value, list[StoredTensor]] = {}
        self.details: dict[StoredTensor, str] = {}
        self.wanted: dict[int, list[_Wanted]] = {}
        for stored in books.unexplained():
            key = stored_corners(stored) if speaks(stored) or is_floating(stored) else None
            if key is not None:
                wanted = _Wanted(stored, key, first_and_last(stored) if key[1].is_floating_point else (0.0, 0.0))
                self.wanted.setdefault(stored.numel, []).append(wanted)

    def offer(self, tensor: Tensor, value: Value) -> None:
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            return
        candidates = self.wanted.get(tensor.numel(), ())
        key = corners(tensor) if candidates else None
        for wanted in candidates:
            if wanted.stored.name in self.books.sources.by_name and wanted.stored.name not in value.lineage:
                continue
            detail = self._compare(wanted, tensor, value, key)
            if detail is not None:
                self.matched.setdefault(value, []).append(wanted.stored)
                self.details[wanted.stored] = detail
                self.tokens.join(wanted.stored, value)

    def explain(self) -> None:
        """Enter the stored tensors that were found."""
        lineages: dict[StoredTensor, set[str]] = {}
        for value, found in self.matched.items():
            for stored in found:
                lineages.setdefault(stored, set()).update(value.lineage)
        for stored, names in lineages.items():
            if names:
                self.books.explain(stored, "fold", tuple(sorted(names)), self.details[stored])
            else:
                self.books.explain(stored, "constant", (), f"made by the forward: {self.details[stored]}")

    def _compare(self, wanted: _Wanted, tensor: Tensor, value: Value, key: Corners | None) -> str | None:
        if key == wanted.key:
            axes = matching_axes(wanted.stored, tensor)
            if axes is not None:
                return "the same bytes as in the eager forward"
        if value.arithmetic and value.formula is not None and _near(tensor, wanted):
            ratio = _recomputed(wanted.stored, tensor, value.formula)
            if ratio is not None:
                return f"recomputed in float64; largest error {ratio:.2f} of the bound"
        return None


def _near(tensor: Tensor, wanted: _Wanted) -> bool:
    if tensor.dtype != wanted.key[1] or not tensor.is_floating_point():
        return False
    ends = (float(tensor[(0,) * tensor.ndim]), float(tensor[(-1,) * tensor.ndim]))
    scale = float(tensor.abs().max())
    return all(abs(a - b) <= _NEAR * scale for a, b in zip(ends, wanted.ends, strict=True))


def _recomputed(stored: StoredTensor, tensor: Tensor, formula: Callable[[], Tensor]) -> float | None:
    """The largest error in units of the bound K · max(eager's own error, C · u · |y64|), when at most 1; else None.

    The eager error is the largest over the tensor, so that an element that cancels is judged by its neighbours.
    """
    exact = formula().reshape(-1).double()
    if exact.numel() != stored.numel:
        return None
    own = float((tensor.reshape(-1).double() - exact).abs().max())
    u = torch.finfo(tensor.dtype).eps / 2
    bound = K * torch.clamp(C * u * exact.abs(), min=max(own, torch.finfo(tensor.dtype).tiny))
    ratio = float(((as_tensor(stored).reshape(-1).double() - exact).abs() / bound).max())
    return ratio if ratio <= 1 else None


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


class Accounts:
    """Whether what the forward uses has arrived in the artifact."""

    def __init__(self, books: Books, search: ValueSearch, folded: set[FoldSite]) -> None:
        self.books = books
        self.search = search
        self.layer_turns = {site.layer_turn for site in folded}
        self.norm_turns = {site.norm_turn for site in folded}
        self._carried: dict[Value, bool] = {}

    def settle(self, uses: list[Use]) -> None:
        """Enter as folded every source whose every use arrived through values or folds; note doubts of the others."""
        good: dict[str, bool] = {}
        for use in uses:
            arrived = use.turn in self.layer_turns or use.turn in self.norm_turns or self.carried(use.value)
            for name in use.value.lineage:
                good[name] = good.get(name, True) and arrived
        for name in self.books.open_sources():
            if good.get(name) and name not in self.books.differing:
                self.books.folded[name] = (
                    self._through(name, uses),
                    "in an expression of weights that the exporter folded",
                )
        for name in self.books.open_buffers():
            if good.get(name) is False:
                self.books.problems.append(f"{name}: the eager forward reads this buffer, but the artifact has it not")
        for name, arrived in good.items():
            if not arrived and name in self.books.folded:
                del self.books.folded[name]
                self.books.doubts[name] = "folded at one place, but another use of it is not in the artifact"

    def _through(self, name: str, uses: list[Use]) -> tuple[str, ...]:
        """Names of the stored tensors by which the uses of a source arrived."""
        found: dict[str, None] = {}
        pending = [use.value for use in uses if name in use.value.lineage]
        while pending:
            value = pending.pop()
            found |= dict.fromkeys(stored.name for stored in self.search.matched.get(value, ()))
            pending += [part for part in value.inputs if name in part.lineage]
        return tuple(found)

    def carried(self, value: Value) -> bool:
        if value not in self._carried:
            self._carried[value] = self._find(value)
        return self._carried[value]

    def _find(self, value: Value) -> bool:
        if value in self.search.matched or not value.lineage:
            return True
        if value.inputs:
            return all(self.carried(part) for part in value.inputs)
        return any(name in self.books.carriers or name in self.books.merged for name in value.lineage)
