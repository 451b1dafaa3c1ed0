"""What is known of torch's operators, by their names in the aten namespace."""

from typing import Any

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

_PLACING = frozenset(
    {"view", "reshape", "_unsafe_view", "flatten", "unflatten", "transpose", "permute", "t", "contiguous", "clone"}
    | {"alias", "detach", "squeeze", "unsqueeze", "swapaxes", "movedim", "dropout", "feature_dropout"}
    | {"expand", "slice", "select", "index", "index_select", "gather", "split", "chunk", "cat", "stack", "repeat"}
    | {"roll", "flip", "narrow", "split_with_sizes", "unbind", "copy_", "lift_fresh", "constant_pad_nd", "unfold"}
    | {"T", "mT", "arange", "zeros", "ones", "full", "empty", "scalar_tensor", "embedding", "where"}
)

CLAMPS: dict[str, dict[str, float | None]] = {
    "clamp": {"min": None, "max": None},
    "clamp_min": {"min": None},
    "clamp_max": {"max": None},
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "relu6": {"min": 0.0, "max": 6.0},
}
"""Operators that hold a value between bounds, with the bounds' names and what they are if not given."""


def name_of(func: Any) -> str:
    return func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)


def computes(func: Any) -> bool:
    """Whether the operator makes new numbers, rather than placing those it is given."""
    return not (getattr(func, "is_view", False) or name_of(func) in _PLACING)


def writes(func: Any) -> bool:
    """Whether the operator writes into one of its arguments."""
    return bool(func._schema.is_mutable) if hasattr(func, "_schema") else True
