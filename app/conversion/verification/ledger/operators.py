"""What the trace must know of torch's operators, by their names in the aten namespace."""

from collections.abc import Mapping
from typing import Any

import torch

SHAPE_ONLY = frozenset(
    {"new_zeros", "new_ones", "new_empty", "new_full", "zeros_like", "ones_like", "empty_like", "full_like"}
    | {"new_empty_strided", "sym_size", "sym_numel", "sym_stride"}
)
"""Operators that read a tensor's shape and dtype, never its elements."""

SHOWN = frozenset(
    {"_local_scalar_dense", "equal", "is_nonzero", "allclose", "nonzero", "masked_select"}
    | {"_unique2", "unique_dim", "unique_consecutive"}
)
"""Operators that show Python values of a tensor, as numbers or as the size of what they give."""

KEEP_CHANNELS = frozenset(
    {"view", "reshape", "_unsafe_view", "flatten", "unflatten", "transpose", "permute", "t", "contiguous", "clone"}
    | {"alias", "detach", "squeeze", "unsqueeze", "swapaxes", "movedim", "dropout", "feature_dropout"}
)
"""Operators that hand a layer's output on to a batch norm without changing an element."""

CHANNEL_STEPS = frozenset({"mul", "div", "add", "sub"})
"""Operators with a weight-only operand that can be folded into the layer before them."""

_MOVES = frozenset(
    {"expand", "slice", "select", "index", "index_select", "gather", "split", "chunk", "cat", "stack", "repeat", "roll"}
    | {"flip", "narrow", "split_with_sizes", "unbind", "copy_", "lift_fresh", "constant_pad_nd", "unfold", "T", "mT"}
    | {"arange", "zeros", "ones", "full", "empty", "scalar_tensor", "embedding", "where"}
)

_ADDED = frozenset({("add", 0), ("add", 1), ("sub", 1), ("linear", 2), ("addmm", 0)})


def name_of(func: Any) -> str:
    return func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)


def by_name(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names of the operator's schema."""
    if not hasattr(func, "_schema"):
        return dict(kwargs)
    names = [argument.name for argument in func._schema.arguments]
    return dict(zip(names, args, strict=False)) | kwargs


def computes(func: Any) -> bool:
    """Whether the operator makes new numbers, rather than placing those it is given."""
    operator = name_of(func)
    return not (getattr(func, "is_view", False) or operator in KEEP_CHANNELS or operator in _MOVES)


def writes(func: Any) -> bool:
    """Whether the operator writes into one of its arguments."""
    return bool(func._schema.is_mutable) if hasattr(func, "_schema") else True


def draws(func: Any, named: Mapping[str, Any]) -> bool:
    """Whether the operator draws random numbers; dropout in eval mode does not."""
    drawing = torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())
    return drawing and named.get("train", named.get("training")) is not False


def is_layer(operator: str) -> bool:
    """Whether the operator is a convolution or a linear layer, into which a batch norm can be folded."""
    return operator.lstrip("_").startswith(("conv", "linear", "addmm", "mm", "matmul"))


def adds(operator: str, position: int) -> bool:
    """Whether the operator adds what it is given as its ``position``-th tensor to its result."""
    plain = operator.strip("_")
    if plain.startswith("conv"):
        return position == 2
    return (plain, position) in _ADDED
