"""Finding what an exporter folded into the layer before it: batch norms, layer scales, added biases."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.books import Axes, Books
from app.conversion.verification.ledger.content import ONNX_DTYPES, first_and_last, is_floating
from app.conversion.verification.ledger.folds import (
    Folded,
    Operand,
    Scaling,
    carries,
    folded_bias,
    folded_weight,
    norm_scaling,
)
from app.conversion.verification.ledger.forward import ChannelStep, EagerTrace, FoldSite, NormKeys, Value
from app.conversion.verification.ledger.graph_uses import GraphUse
from app.conversion.verification.ledger.order import Tokens
from app.conversion.verification.ledger.values import C, K

_EXPRESSION_ROUNDINGS = 8
"""Roundings allowed to the exporter's own evaluation of an operand that is an expression of weights."""


@dataclass(frozen=True)
class _Part:
    """The weight or the bias of a site: what it should be, which keys it is made of, which names it may have."""

    words: str
    folded: Folded
    shape: tuple[int, ...]
    keys: tuple[str, ...]
    names: frozenset[str]
    lead: Value
    """Whose place in the forward's order is the part's."""
    unchanged: bool = False
    """Whether no step scales: the layer keeps its weight, and only its bias is another."""


def match_folds(
    books: Books,
    trace: EagerTrace,
    tokens: Tokens,
    uses: list[GraphUse],
    orders: dict[tuple[StoredTensor, Value], Axes],
) -> None:
    """Enter steps folded into the layer before them where weight and bias were both found; ``tokens`` note the turns.

    Of steps that follow one after the other, any first few may be folded. ``orders`` is told how matrices lie.
    """
    by_size: dict[int, list[StoredTensor]] = {}
    for stored in books.unexplained():
        if is_floating(stored) and stored.data_type in ONNX_DTYPES:
            by_size.setdefault(stored.numel, []).append(stored)
    together = _operands_together(uses)
    for site in trace.sites:
        parts = _parts(books, trace, site, by_size)
        if parts is None:
            continue
        weights = _matching(books, by_size, parts[0])
        kept = _kept(books, parts[0])
        beside = {stored for weight in (*weights, *kept) for stored in together.get(weight, ())}
        biases = {stored: axes for stored, axes in _matching(books, by_size, parts[1]).items() if stored in beside}
        if not (weights or kept) or not (biases or _is_zero(parts[1])):
            continue
        tokens.folded.update(site.turns)
        for part, matches in zip(parts, (weights, biases), strict=True):
            for stored, axes in matches.items():
                orders[stored, part.lead] = axes
                books.explain(stored, "fold", part.keys, part.words)
                books.fold(part.keys, stored, "folded into the layer before, recomputed in float64")
                tokens.join(stored, part.lead)
                tokens.moved.add(part.lead)


def _operands_together(uses: list[GraphUse]) -> Mapping[StoredTensor, set[StoredTensor]]:
    """For each stored tensor, those that meet the inputs at the same node."""
    at: dict[int, set[StoredTensor]] = {}
    for use in uses:
        at.setdefault(use.node, set()).add(use.stored)
    beside: dict[StoredTensor, set[StoredTensor]] = {}
    for use in uses:
        beside.setdefault(use.stored, set()).update(at[use.node])
    return beside


def _parts(
    books: Books, trace: EagerTrace, site: FoldSite, by_size: Mapping[int, list[StoredTensor]]
) -> tuple[_Part, _Part] | None:
    """Weight and bias as they should be; None when nothing stored has their size, or a step is no channel scaling."""
    layer = site.layer
    if layer.weight.formula is None:
        return None
    narrow = layer.weight.formula(False)
    unchanged = all(step.operator in ("add", "sub") for step in site.steps)
    if not (unchanged or narrow.numel() in by_size) or not narrow.is_floating_point():
        return None
    channels = narrow.shape[layer.axis] * (layer.groups if layer.axis else 1)
    scalings = [_scaling(step, channels, books) for step in site.steps]
    found = [scaling for scaling in scalings if scaling is not None and scaling.scale.numel() == channels]
    weight, bias = _operand(books, layer.weight), _operand(books, layer.bias)
    if len(found) != len(scalings) or weight is None or (bias is None and layer.bias is not None):
        return None
    steps = " and ".join(_words(step) for step in site.steps)
    own = sorted(layer.bias.lineage) if layer.bias is not None else []
    scales = [key for step in site.steps for key in _keys(step, shifts=False)]
    shifts = [key for step in site.steps for key in _keys(step, shifts=True)]
    weight_keys, bias_keys = _unique([*sorted(layer.weight.lineage), *scales]), _unique([*own, *shifts, *scales])
    first = next((step.value for step in site.steps if step.value is not None), None)
    lead = layer.bias if own else trace.leaf.get(bias_keys[0], first) if bias_keys else None
    words = ", ".join(sorted(layer.weight.lineage))
    return (
        _Part(
            f"weight of {words} with {steps}",
            folded_weight(weight, found, layer.axis, layer.groups, narrow.dtype),
            tuple(narrow.shape),
            weight_keys,
            layer.weight.lineage,
            layer.weight,
            unchanged,
        ),
        _Part(
            f"bias beside {words} with {steps}",
            folded_bias(bias, found, narrow.dtype),
            (channels,),
            bias_keys,
            frozenset([*own, *shifts]),
            lead or layer.weight,
        ),
    )


def _operand(books: Books, value: Value | None) -> Operand | None:
    """A layer's operand in float64; None for none, and for one that the loaded module does not hold as uploaded."""
    if value is None or value.formula is None or value.lineage & books.differing:
        return None
    exact = value.formula(True)
    if not value.arithmetic:
        return Operand(exact)
    narrow = value.formula(False)
    u = torch.finfo(narrow.dtype).eps / 2
    own = float((narrow.double() - exact).abs().max())
    return Operand(exact, K * max(own, C * u * float(exact.abs().max())))


def _scaling(step: ChannelStep, channels: int, books: Books) -> Scaling | None:
    """A step in float64; None when it is not one number for each channel."""
    if step.norm is not None:
        return norm_scaling(step.norm, books.sources.value)
    if step.value is None or step.value.formula is None or step.value.lineage & books.differing:
        return None
    operand = step.value.formula(True).double().reshape(-1)
    if operand.numel() not in (1, channels):
        return None
    operand = operand.expand(channels)
    one, zero = torch.ones_like(operand), torch.zeros_like(operand)
    scale = {"mul": operand, "div": 1 / operand}.get(step.operator, one)
    shift = {"add": operand, "sub": -operand}.get(step.operator, zero)
    return Scaling(scale, shift, shift.abs(), _EXPRESSION_ROUNDINGS if step.value.arithmetic else 2)


def _keys(step: ChannelStep, *, shifts: bool) -> list[str]:
    """The keys that a step's shift, or its scale, is made of."""
    if step.norm is not None:
        norm: NormKeys = step.norm
        keys = (norm.mean, norm.beta) if shifts else (norm.gamma, norm.variance)
        return [key for key in keys if key is not None]
    lineage = sorted(step.value.lineage) if step.value is not None else []
    return lineage if shifts == (step.operator in ("add", "sub")) else []


def _words(step: ChannelStep) -> str:
    if step.norm is not None:
        return "the batch norm that follows it"
    operand = ", ".join(sorted(step.value.lineage)) if step.value is not None else ""
    return f"{step.operator} {operand or 'a constant'}"


def _unique(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(keys))


def _is_zero(part: _Part) -> bool:
    return not part.keys or not bool(part.folded.value.any())


def _kept(books: Books, part: _Part) -> list[StoredTensor]:
    """Stored tensors that hold a layer's weight as it was uploaded, where no step changes it."""
    if not part.unchanged or part.lead.inputs:
        return []
    return [carrier.stored for name in part.names for carrier in books.carriers.get(name, ())]


def _matching(books: Books, by_size: Mapping[int, list[StoredTensor]], part: _Part) -> dict[StoredTensor, Axes]:
    """Stored tensors that are the part, and the order of its axes that each has.

    One with a state-dict key's name must have one of the part's.
    """
    ends = _ends(part.folded.value)
    margins = _ends(part.folded.bound)
    found: dict[StoredTensor, Axes] = {}
    for stored in by_size.get(part.folded.value.numel(), ()):
        if (stored.name in books.sources.by_name and stored.name not in part.names) or not part.keys:
            continue
        near = zip(first_and_last(stored), ends, margins, strict=True)
        if any(abs(value - end) > margin for value, end, margin in near):
            continue
        for axes in _axes(stored, part):
            if stored not in found and carries(stored, part.folded, axes) is not None:
                found[stored] = axes
    return found


def _axes(stored: StoredTensor, part: _Part) -> list[Axes]:
    """The orders of a part's axes that the stored dims allow: of a square matrix both, its operator tells which."""
    straight = tuple(range(len(part.shape)))
    turned = tuple(reversed(straight))
    if _long(stored.dims) != _long(part.shape):
        return [turned]
    square = len(_long(part.shape)) == 2 and len(set(_long(part.shape))) == 1
    return [straight, turned] if square else [straight]


def _ends(tensor: Tensor) -> tuple[float, float]:
    first, last = tensor.reshape(-1)[[0, -1]].tolist()
    return first, last


def _long(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size > 1]
