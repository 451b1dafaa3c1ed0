"""Weight-only values of the eager forward, compared with stored tensors while they exist, and the account of uses."""

from collections.abc import Set
from dataclasses import dataclass

import torch
from torch import Tensor

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.books import Axes, Books
from app.conversion.verification.ledger.content import (
    Corners,
    as_tensor,
    corners,
    first_and_last,
    is_floating,
    matching_axes,
    speaks,
    stored_corners,
)
from app.conversion.verification.ledger.formula import Formula
from app.conversion.verification.ledger.forward import Use, Value
from app.conversion.verification.ledger.order import Tokens

K = 8
"""How many times torch's own rounding error a recomputed expression may be off; as in the gate of parity."""
C = 4
_NEAR = 1e-2
"""Relative difference of the first and last element up to which an expression is recomputed in float64."""


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
        self.orders: dict[tuple[StoredTensor, Value], Axes] = {}
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
                if value.lineage:
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
                self.orders[wanted.stored, value] = axes
                return "the same bytes as in the eager forward"
        if value.arithmetic and value.formula is not None and _near(tensor, wanted):
            found = _recomputed(wanted.stored, tensor, value.formula)
            if found is not None:
                ratio, self.orders[wanted.stored, value] = found
                return f"recomputed in float64; largest error {ratio:.2f} of the bound"
        return None


def _near(tensor: Tensor, wanted: _Wanted) -> bool:
    if tensor.dtype != wanted.key[1] or not tensor.is_floating_point():
        return False
    ends = (float(tensor[(0,) * tensor.ndim]), float(tensor[(-1,) * tensor.ndim]))
    scale = float(tensor.abs().max())
    return all(abs(a - b) <= _NEAR * scale for a, b in zip(ends, wanted.ends, strict=True))


def _recomputed(stored: StoredTensor, tensor: Tensor, formula: Formula) -> tuple[float, Axes] | None:
    """The largest error in units of the bound K · max(eager's own error, C · u · |y64|), when at most 1, and the order
    of axes in which the elements are stored: a matrix may be transposed. Else None.

    The eager error is the largest over the tensor, so that an element that cancels is judged by its neighbours.
    """
    try:
        exact = formula(True).double()
    except (RuntimeError, TypeError, ValueError):  # an operator without a float64 form cannot be recomputed
        return None
    if exact.numel() != stored.numel:
        return None
    own = float((tensor.reshape(-1).double() - exact.reshape(-1)).abs().max())
    u = torch.finfo(tensor.dtype).eps / 2
    held = as_tensor(stored).reshape(-1).double()
    for axes in _readings(tuple(exact.shape), stored.dims):
        value = exact.permute(axes).reshape(-1)
        bound = K * torch.clamp(C * u * value.abs(), min=max(own, torch.finfo(tensor.dtype).tiny))
        ratio = float(((held - value).abs() / bound).max())
        if ratio <= 1:
            return ratio, axes
    return None


def _readings(shape: tuple[int, ...], dims: tuple[int, ...]) -> list[Axes]:
    """Orders of axes in which a value of that shape may lie under these dims."""
    straight = tuple(range(len(shape)))
    if len(shape) != 2 or dims not in (shape, shape[::-1]):
        return [straight]
    return [axes for axes in (straight, straight[::-1]) if dims == tuple(shape[axis] for axis in axes)]


def _how(name: str, uses: list[Use]) -> str:
    if all(use.zeros for use in uses if name in use.value.lineage):
        return "zeros that are only added, which the exporter may leave out"
    return "in an expression of weights that the exporter folded"


class Accounts:
    """Whether what the forward uses has arrived in the artifact."""

    def __init__(self, books: Books, search: ValueSearch, lost: set[str]) -> None:
        """``lost`` are sources of which some use is known to be missing."""
        self.books = books
        self.search = search
        self.lost = lost
        self._carried: dict[Value, bool] = {}

    def settle(self, uses: list[Use], judged: Set[str]) -> None:
        """Enter as folded every source whose every use arrived through values or folds; note doubts of the others.

        ``judged`` are sources on which an earlier forward has decided.
        """
        good: dict[str, bool] = {}
        for use in uses:
            arrived = bool(use.zeros) or use.turn in self.search.tokens.folded or self.carried(use.value)
            for name in use.value.lineage - judged:
                good[name] = good.get(name, True) and arrived
        for name in self.books.open_sources():
            if good.get(name) and name not in self.books.differing | self.lost:
                self.books.folded[name] = (self._through(name, uses), _how(name, uses))
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
