"""How a slot's tensor is computed from uploaded tensors when an artifact is written: a small expression.

A recipe is a tree whose leaves are state-dict keys and constants of the template, and whose nodes move elements about
or round them to another dtype or to 8 bits. There is no other arithmetic on purpose: every element of an artifact is
then an element of an uploaded tensor, or its level, which the weight ledger can prove bit by bit. Moving elements costs
nothing until the result is written: torch makes views of it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from app.targets.templating.tensor_bytes import dtype_of


@dataclass(frozen=True)
class Weight:
    """A tensor of the state dict."""

    key: str


@dataclass(frozen=True)
class Constant:
    """A tensor kept in the template."""

    name: str


@dataclass(frozen=True)
class Operation:
    """``attributes`` hold integers, lists of integers, or a dtype's name."""

    name: str
    operands: tuple["Recipe", ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


Recipe = Weight | Constant | Operation


def _slice(tensor: Tensor, *, axis: int, start: int, end: int, step: int) -> Tensor:
    index = [slice(None)] * tensor.dim()
    index[axis] = slice(start, end, step)
    return tensor[tuple(index)]


def _gather(tensor: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    """ONNX Gather: negative indices count from the end."""
    size = tensor.shape[axis]
    flat = indices.reshape(-1).to(torch.int64)
    picked = tensor.index_select(axis, torch.where(flat < 0, flat + size, flat))
    return picked.reshape(tensor.shape[:axis] + indices.shape + tensor.shape[axis + 1 :])


def _gather_nd(tensor: Tensor, indices: Tensor) -> Tensor:
    """ONNX GatherND without batch dimensions: the last axis of ``indices`` holds positions along the first axes."""
    return tensor[tuple(indices.to(torch.int64).unbind(-1))]


LEVELS = 127
"""Of 8 bits to either side of zero; one of the 256 is left out, so that -x has the level opposite to that of x."""


def _int8_scale(tensor: Tensor, *, axis: int, shape: list[int]) -> Tensor:
    """One step of the levels of each index of ``axis``; 1 where all of it is 0."""
    return _steps(tensor, axis).reshape(shape)


def _int8(tensor: Tensor, *, axis: int) -> Tensor:
    """Levels, from 1 to 255 with 128 for zero; rounded to nearest, ties to even."""
    along = [1] * tensor.dim()
    along[axis] = -1
    levels = (tensor / _steps(tensor, axis).reshape(along)).round_().clamp_(-LEVELS, LEVELS)
    return levels.add_(LEVELS + 1).to(torch.uint8)


def _steps(tensor: Tensor, axis: int) -> Tensor:
    steps = tensor.abs().amax([at for at in range(tensor.dim()) if at != axis]) / LEVELS
    return torch.where(steps > 0, steps, torch.ones_like(steps))


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "permute": lambda tensor, *, perm: tensor.permute(perm),
    "reshape": lambda tensor, *, shape: tensor.reshape(shape),
    "expand": lambda tensor, *, shape: tensor.expand(shape),
    "slice": _slice,
    "concat": lambda *tensors, axis: torch.cat(tensors, axis),
    "gather": _gather,
    "gather_nd": _gather_nd,
    "int8": _int8,
    "int8_scale": _int8_scale,
    "cast": lambda tensor, *, dtype: tensor.to(dtype_of(dtype)),
}


def evaluate(recipe: Recipe, weights: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    """The tensor that the recipe describes, on the device of its operands ("meta" gives shape and dtype alone).

    Raises IndexError or RuntimeError, as torch does, where uploaded indices point beyond a tensor.
    """
    match recipe:
        case Weight(key):
            return weights[key]
        case Constant(name):
            return constants[name]
        case Operation(name, operands, attributes):
            values = [evaluate(operand, weights, constants) for operand in operands]
            return OPERATIONS[name](*values, **attributes)


def weights_of(recipe: Recipe) -> Iterator[str]:
    """The state-dict keys at the leaves, from left to right; one may come twice."""
    match recipe:
        case Weight(key):
            yield key
        case Operation(_, operands, _):
            for operand in operands:
                yield from weights_of(operand)


def constants_of(recipe: Recipe) -> Iterator[str]:
    """The names of template constants at the leaves."""
    match recipe:
        case Constant(name):
            yield name
        case Operation(_, operands, _):
            for operand in operands:
                yield from constants_of(operand)


def to_json(recipe: Recipe) -> Any:
    """A weight is {"weight": key}, a constant {"constant": name}, an operation {"op", "of": [...], "with": {...}}."""
    match recipe:
        case Weight(key):
            return {"weight": key}
        case Constant(name):
            return {"constant": name}
        case Operation(name, operands, attributes):
            return {"op": name, "of": [to_json(operand) for operand in operands], "with": dict(attributes)}


def from_json(value: Mapping[str, Any]) -> Recipe:
    """The inverse of ``to_json``; KeyError for an operation this version does not know."""
    if "weight" in value:
        return Weight(value["weight"])
    if "constant" in value:
        return Constant(value["constant"])
    if value["op"] not in OPERATIONS:
        raise KeyError(value["op"])
    return Operation(value["op"], tuple(from_json(operand) for operand in value["of"]), value["with"])
