"""Tables of integers, booleans and masks that an artifact holds beside the weights: lookup tables, indices, masks.

What such a tensor is excuses it (ledger/constants.py), but says nothing of its elements. Where the architecture keeps
or makes a table of the same size and dtype that nothing else in the artifact carries, the stored one must have its
bytes. A table that only the exporter knows has no counterpart there and stays excused.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.books import Books
from app.conversion.verification.ledger.constants import constant_rule, is_fill
from app.conversion.verification.ledger.content import ONNX_DTYPES, matching_axes
from app.conversion.verification.ledger.forward import EagerTrace, Value

_FEW = 16
"""Elements up to which tables of one size are alike by chance: shapes, axes and pads are not longer."""

_Kind = tuple[int, torch.dtype]


def open_tables(books: Books) -> list[StoredTensor]:
    """Stored tensors of many elements that only what they are would excuse."""
    return [
        stored
        for stored in books.unexplained()
        if stored.numel > _FEW
        and stored.data_type in ONNX_DTYPES
        and stored.name not in books.sources.by_name
        and constant_rule(stored, []) is not None
        and not is_fill(stored)
    ]


class TableSearch:
    """Compares open tables with what an eager forward reads and makes; ``offer`` is for ledger/trace.py."""

    def __init__(self, books: Books, module: nn.Module, tables: Iterable[StoredTensor]) -> None:
        self.books = books
        self.tables: dict[_Kind, list[StoredTensor]] = {}
        for stored in tables:
            self.tables.setdefault((stored.numel, ONNX_DTYPES[stored.data_type]), []).append(stored)
        self.kept = {
            id(value): f"{path}.{name}" if path else name
            for path, part in module.named_modules()
            for name, value in vars(part).items()
            if isinstance(value, Tensor)
        }
        self.matched: set[StoredTensor] = set()
        self.rivals: dict[_Kind, dict[Value, str]] = {}
        self.inner: set[Value] = set()
        """Values that others were made of: an exporter may have folded them away."""

    def offer(self, tensor: Tensor, value: Value) -> None:
        self.inner.update(value.inputs)
        kind = (tensor.numel(), tensor.dtype)
        if kind not in self.tables or tensor.layout is not torch.strided or tensor.device.type != "cpu":
            return
        same = {stored for stored in self.tables[kind] if matching_axes(stored, tensor) is not None}
        self.matched |= same
        rounded = value.arithmetic and tensor.is_floating_point()
        if not same and not rounded and self._answered_by_none(value):
            self.rivals.setdefault(kind, {})[value] = self.kept.get(id(tensor), "")

    def explain(self, found: EagerTrace) -> None:
        """Enter every table that has a counterpart in the forward: one with its bytes, or else unexplained."""
        for kind, tables in self.tables.items():
            rivals = [name for value, name in self.rivals.get(kind, {}).items() if name or value not in self.inner]
            rivals += self._buffers(kind, found)
            for stored in tables:
                if stored in self.matched:
                    self.books.explain(stored, "constant", (), "the same bytes as in the eager forward")
                elif rivals:
                    rival = rivals[0] or "a table that the forward makes"
                    detail = f"of the size and type of {rival}, but not with its bytes"
                    self.books.explain(stored, "unexplained", (), detail)

    def _answered_by_none(self, value: Value) -> bool:
        """Whether no other column of the ledger answers for the value: weights have their own, carried buffers too."""
        return all(self._is_open_buffer(name) for name in value.lineage)

    def _is_open_buffer(self, name: str) -> bool:
        return self.books.sources.by_name[name].kind != "uploaded" and name not in self.books.carriers

    def _buffers(self, kind: _Kind, found: EagerTrace) -> list[str]:
        """Buffers of that size and dtype which the forward reads and nothing carries."""
        by_name = self.books.sources.by_name
        return [
            name
            for name in sorted(found.reached)
            if self._is_open_buffer(name) and (by_name[name].tensor.numel(), by_name[name].dtype) == kind
        ]
