"""Which operators of a forward compute the same: one operator on the same operands, whose results no two orders of
evaluation can tell apart.

Optimisers make such a computation once (common subexpression elimination). Operands are the same when they are the
result of the same computation, or tensors of the architecture with equal bytes, of which exporters keep one. Of two
inputs none is the other, whatever numbers this run gives them.
"""

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from app.conversion.verification.ledger.content import corners
from app.conversion.verification.ledger.sources import raw_bytes, same_bytes


class Computations:
    """Numbers for computations and for what they give; equal numbers, equal bits."""

    def __init__(self, placed: Mapping[str, Tensor], inputs: Iterable[Tensor]) -> None:
        self._next = count()
        self._calls: dict[str, int] = {}
        self._numbers: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._contents: dict[object, list[tuple[Tensor, int]]] = {}
        self._placed = {id(tensor): tensor for tensor in placed.values()}
        for tensor in inputs:
            self._numbers[tensor] = self.another()

    def another(self) -> int:
        """The number of something that is like nothing else."""
        return next(self._next)

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: object, *, again: bool) -> int:
        """The number of a call, and with it of its results. ``again``: it would give the same another time."""
        number = self.another()
        if again:
            number = self._calls.setdefault(self._words(func, args, kwargs), number)
        for place, leaf in enumerate(tree_leaves(result)):
            if isinstance(leaf, Tensor):
                self._numbers[leaf] = (number, place)
        return number

    def _words(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        leaves, structure = tree_flatten((args, kwargs))
        words = [f"#{self._number(leaf)}" if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves]
        return f"{func} {' '.join(words)} {structure}"

    def _number(self, tensor: Tensor) -> object:
        if tensor not in self._numbers:
            self._numbers[tensor] = self._content(tensor) if id(tensor) in self._placed else self.another()
        return self._numbers[tensor]

    def _content(self, tensor: Tensor) -> int:
        """The number of all tensors of the architecture with these bytes in this layout."""
        key = (tuple(tensor.shape), tensor.stride(), corners(tensor))
        same = self._contents.setdefault(key, [])
        data = raw_bytes(tensor)
        number = next((number for other, number in same if same_bytes(raw_bytes(other), data)), None)
        if number is None:
            number = self.another()
            same.append((tensor, number))
        return number
