"""Eager with every result rounded at random: how far rounding alone may carry the model's outputs.

Monte Carlo arithmetic (Parker, Monte Carlo Arithmetic, UCLA CSD-970002, 1997): the last bit of what operators
compute is moved up or down at random, and the spread of the outputs is their rounding error. Moving the inputs tells
less: where they are small beside a bias, or are token ids, rounding happens further on all the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from app.conversion.verification.tolerance import unit_roundoff
from app.targets.operators import computes, writes

ONE_IN = 8
"""One element in so many is moved up and one down: then the root mean square of all is the unit roundoff, and true
rounding's is a third to a half of that."""


@contextmanager
def random_rounding(seed: int, units: float = 1.0) -> Iterator[None]:
    """Inside, a part of the elements of every operator's result is off by ``units`` in the last place, up or down."""
    with _RandomRounding(seed, units):
        yield


class _RandomRounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, seed: int, units: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.units = units
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # What an operator writes in place may be the model's own.
        return result if writes(func) or not computes(func) else tree_map(self._moved, result)

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            return value
        step = 2 * self.units * unit_roundoff(value.dtype)
        drawn = torch.randint(0, ONE_IN, value.shape, generator=self.generator, dtype=torch.int8)
        factor = torch.ones((), dtype=value.dtype) + step * (
            (drawn == 0).to(value.dtype) - (drawn == 1).to(value.dtype)
        )
        return value * factor
