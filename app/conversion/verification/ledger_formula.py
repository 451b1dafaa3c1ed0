"""Expressions of weights, kept to be evaluated again in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Formula = Callable[[], Tensor]
_WIDE = {torch.complex64: torch.complex128}


@dataclass(frozen=True)
class _Lazy:
    formula: Formula


def leaf_formula(tensor: Tensor) -> Formula:
    """The tensor itself; real and complex numbers in double precision."""
    wide = torch.float64 if tensor.is_floating_point() else _WIDE.get(tensor.dtype, tensor.dtype)
    return lambda: tensor.detach().to(wide)


def call_formula(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], formula_of: Callable[[Tensor], Formula | None]
) -> Formula:
    """The operator applied to what its tensors' own formulas give. Dtypes among the arguments are widened as well."""

    def lazy(leaf: Any) -> Any:
        formula = formula_of(leaf) if isinstance(leaf, Tensor) else None
        return _Lazy(formula) if formula is not None else leaf

    lazy_args, lazy_kwargs = tree_map(lazy, (args, kwargs))

    def evaluate() -> Tensor:
        wide_args, wide_kwargs = tree_map(_force, (lazy_args, lazy_kwargs))
        result: Tensor = func(*wide_args, **wide_kwargs)
        return result

    return evaluate


def _force(leaf: Any) -> Any:
    if isinstance(leaf, _Lazy):
        return leaf.formula()
    if isinstance(leaf, torch.dtype):
        return torch.float64 if leaf.is_floating_point else _WIDE.get(leaf, leaf)
    return leaf
