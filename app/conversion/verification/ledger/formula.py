"""Expressions of weights, kept to be evaluated again: in double precision, or as the forward did."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Formula = Callable[[bool], Tensor]
"""Evaluates an expression; True: with real and complex numbers, and dtypes among arguments, in double precision."""
_WIDE = {torch.complex64: torch.complex128}


@dataclass(frozen=True)
class _Lazy:
    formula: Formula


def leaf_formula(tensor: Tensor) -> Formula:
    """The tensor itself."""
    return lambda wide: tensor.detach().to(_dtype(tensor.dtype, wide))


def number_formula(number: float) -> Formula:
    """A Python number, which torch takes in double precision."""
    return lambda _: torch.tensor(number, dtype=torch.float64)


def call_formula(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], formula_of: Callable[[Tensor], Formula | None]
) -> Formula:
    """The operator applied to what its tensors' own formulas give."""

    def lazy(leaf: Any) -> Any:
        formula = formula_of(leaf) if isinstance(leaf, Tensor) else None
        return _Lazy(formula) if formula is not None else leaf

    lazy_args, lazy_kwargs = tree_map(lazy, (args, kwargs))

    def evaluate(wide: bool) -> Tensor:
        forced_args, forced_kwargs = tree_map(partial(_force, wide=wide), (lazy_args, lazy_kwargs))
        result: Tensor = func(*forced_args, **forced_kwargs)
        return result

    return evaluate


def _force(leaf: Any, wide: bool) -> Any:
    if isinstance(leaf, _Lazy):
        return leaf.formula(wide)
    return _dtype(leaf, wide) if isinstance(leaf, torch.dtype) else leaf


def _dtype(dtype: torch.dtype, wide: bool) -> torch.dtype:
    if not wide:
        return dtype
    return torch.float64 if dtype.is_floating_point else _WIDE.get(dtype, dtype)
