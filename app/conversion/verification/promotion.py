"""Run a float32 module's forward in float64 without copying the module.

A dispatch mode sees every operator that the forward reaches, whoever owns the weights: leaf modules, parents with bare
parameters, functional calls such as ``F.linear(x, self.in_proj_weight)``, tied weights, flat LSTM weights. It widens
the operands of each operator for that operator only, so the extra memory is float64 activations plus one operator's
weights, never the model. Hooks on leaf modules would miss the functional uses; a float64 copy would double the memory.

Results are handed back as ``Promoted``: tensors that say float32 and hold float64. Code that asks for a dtype
(``x.to(self.weight.dtype)``, ``torch.finfo(x.dtype).min``, the check in ``nn.LSTM.forward``) so behaves as in float32,
while ``x.float()`` and ``torch.zeros(..., dtype=torch.float32)`` lose nothing.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from app.conversion.verification.tolerance import is_inexact
from app.targets.operators import CLAMPS, SHAPE_ONLY

WIDE = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}
NARROW = {torch.float64: torch.float32, torch.complex128: torch.complex64}


@dataclass(frozen=True)
class OperatorCall:
    """One call of an operator whose constants parity can be blind to: normalisation, GELU and clamps."""

    name: str
    attributes: tuple[tuple[str, float | str | bool], ...]


@dataclass
class Trace:
    """What the forward did, seen on the way: constants to audit, scores behind arg-type results, rough cost."""

    calls: list[OperatorCall] = field(default_factory=list)
    scalars: set[float] = field(default_factory=set)
    """Every float handed to an operator, in Python or as a tensor of no axes, so every epsilon written out by hand."""
    choices: list[tuple[Tensor, Tensor, int | None]] = field(default_factory=list)
    """(indices, scores in float64, dim) of every argmax, max, topk, sort ...; dim None: over the flattened scores."""
    operators: Counter[str] = field(default_factory=Counter)
    """How often each operator was reached."""
    on_integers: Counter[str] = field(default_factory=Counter)
    """Of these, how often on integers and booleans alone, and with such as its result."""
    integers_of_floats: bool = False
    """Whether a float became an integer, a boolean or a Python value: then what is on integers follows weights too."""
    steps: bool = False
    """Whether a float was compared, rounded or made an integer, so that a float result may jump."""
    sigmoids: frozenset[str] = frozenset()
    """Outputs of the forward that are what a sigmoid gave, moved around at most."""
    operations: int = 0
    """Multiply-adds × 2 of convolutions and matrix products; an order of magnitude, for budgets."""


class Promoted(Tensor):
    """A tensor whose dtype says float32 (complex64) while ``wide`` holds float64 (complex128).

    Outside of the promotion mode it is the tensor that its dtype says.
    """

    wide: Tensor
    from_sigmoid: bool = False

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, wide: Tensor) -> "Promoted":
        # An inference tensor cannot be the base of a view made by a wrapper, hence a normal one around it.
        with torch.inference_mode(False):
            made: Promoted = Tensor._make_wrapper_subclass(
                cls,
                wide.size(),
                strides=wide.stride(),
                storage_offset=wide.storage_offset(),
                dtype=NARROW[wide.dtype],
                device=wide.device,
            )
        made.wide = wide
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        # Left over in a place outside of the module, such as a cache in its file: it is worth what float32 holds of it.
        return func(*tree_map(_narrow, args), **tree_map(_narrow, kwargs or {}))

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Promoted({self.wide!r})"


def widen(value: Any) -> Any:
    """The operand for an operator: what a Promoted holds, a float tensor in float64, else the value itself."""
    if isinstance(value, Promoted):
        return value.wide
    if isinstance(value, Tensor) and value.dtype in WIDE:
        return value.to(WIDE[value.dtype])
    if isinstance(value, torch.dtype):
        return WIDE.get(value, value)
    return value


def _narrow(value: Any) -> Any:
    return value.wide.to(NARROW[value.wide.dtype]) if isinstance(value, Promoted) else value


def wrap(value: Any) -> Any:
    """The result of an operator, made to say float32 where it is float64."""
    if isinstance(value, Tensor) and value.dtype in NARROW and not isinstance(value, Promoted):
        return Promoted(value)
    return value


def unwrap(value: Tensor) -> Tensor:
    """The float64 value of a forward's output; a plain float tensor (a weight returned as is) is widened exactly."""
    widened: Tensor = widen(value)
    return widened


class Promotion(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, every operator computes in float64. ``trace`` collects what the forward did."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = trace

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = _with_epsilon(func, args, kwargs or {})
        if _writes_plain_float(func, args):
            return _write_narrow(func, args, kwargs)
        wide_args, wide_kwargs = tree_map(widen, (args, kwargs))
        result = func(*wide_args, **wide_kwargs)
        _observe(self.trace, func, wide_args, wide_kwargs, result)
        returned = _return(args, result)
        _mark_sigmoid(func, args, returned)
        return returned


class Observing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, ``trace`` collects what the forward does, in whatever dtype; scores behind choices are left out."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = trace

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        _observe(self.trace, func, *_with_epsilon(func, args, kwargs), result)
        return result


def _with_epsilon(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments with the epsilon that a normalisation without one takes: that of the dtype it computes in.

    So it is of nn.RMSNorm(n) (torch/nn/modules/normalization.py); in float64 it would be another.
    """
    names = [argument.name for argument in func._schema.arguments]
    if (
        "norm" not in func._schema.name
        or "eps" not in names
        or func._schema.arguments[names.index("eps")].default_value
    ):
        return args, kwargs
    place = names.index("eps")
    if kwargs.get("eps") is not None or (len(args) > place and args[place] is not None):
        return args, kwargs
    computed = torch.float64 if args[0].dtype == torch.float64 else torch.float32  # half precision is computed in that
    rest = dict(zip(names[place + 1 :], args[place + 1 :], strict=False))
    return args[:place], {**kwargs, **rest, "eps": torch.finfo(computed).eps}


def _return(args: Sequence[Any], result: Any) -> Any:
    """Wrap the result; an in-place operator gives back the very tensor it was called on."""
    first = args[0] if args else None
    if isinstance(first, Promoted) and result is first.wide and first.shape == result.shape:
        return first
    return tree_map(wrap, result)


def _mark_sigmoid(func: Any, args: Any, returned: Any) -> None:
    name = func._schema.name.rpartition("::")[2].rstrip("_")
    moved = name in _MOVES and any(getattr(leaf, "from_sigmoid", False) for leaf in tree_leaves(args))
    for leaf in tree_leaves(returned) if moved or name == "sigmoid" else ():
        if isinstance(leaf, Promoted):
            leaf.from_sigmoid = True


def _writes_plain_float(func: Any, args: Sequence[Any]) -> bool:
    """True for an in-place operator on a tensor made outside: a buffer, or a constant made from Python data."""
    arguments = func._schema.arguments
    if not args or not arguments or arguments[0].alias_info is None or not arguments[0].alias_info.is_write:
        return False
    target = args[0]
    return isinstance(target, Tensor) and not isinstance(target, Promoted) and target.dtype in WIDE


def _write_narrow(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an in-place operator on a float32 tensor in float32: that tensor cannot hold more."""
    dtype = args[0].dtype

    def narrow(value: Any) -> Any:
        return value.wide.to(dtype) if isinstance(value, Promoted) else value

    return func(*tree_map(narrow, args), **tree_map(narrow, kwargs))


@contextmanager
def promotion(trace: Trace) -> Iterator[None]:
    """Inside, modules called with Promoted inputs compute in float64."""
    with torch.inference_mode(), Promotion(trace):
        yield


@contextmanager
def observing(trace: Trace) -> Iterator[None]:
    """Inside, modules called with ordinary inputs compute as ever, and ``trace`` notes what."""
    with torch.inference_mode(), Observing(trace):
        yield


# --- what is noted on the way --------------------------------------------------------------------------------------

_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d"})
_PRODUCTS = frozenset({"linear", "matmul", "mm", "bmm"})
_CHOICES = frozenset({"argmax", "argmin", "max", "min", "topk", "sort", "argsort"})
_VIEWS = frozenset({"alias", "as_strided", "detach", "expand", "reshape", "t", "transpose", "permute", "view"})
_PARTS = frozenset({"chunk", "gather", "index", "index_select", "narrow", "select", "slice", "split", "unbind"})
_JOINTS = frozenset({"cat", "stack", "squeeze", "unsqueeze", "flatten", "clone", "contiguous", "_to_copy"})
_MOVES = _VIEWS | _PARTS | _JOINTS | {"split_with_sizes", "_unsafe_view", "detach", "clone"}
"""Operators whose results hold their operands' values, unchanged."""
_ROUNDING = frozenset({"ceil", "fix", "floor", "fmod", "remainder", "round", "sgn", "sign", "trunc", "floor_divide"})
_AUDITED = ("eps", "approximate", "training")


def _observe(trace: Trace, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
    name = func._schema.name.rpartition("::")[2].rstrip("_")
    trace.operators[name] += 1
    _note_integers(trace, name, (args, kwargs), result)
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    _note_constants(trace, func, name, named)
    trace.steps = trace.steps or _steps(name, named, result)
    if name in _CHOICES and _is_wide(named.get("self")):
        _note_choice(trace, func, named, result)
    elif isinstance(result, Tensor):
        trace.operations += _cost(name, args, result)


def _note_integers(trace: Trace, name: str, given: Any, result: Any) -> None:
    made = tree_leaves(result)
    integers = [not is_inexact(leaf) for leaf in made if isinstance(leaf, Tensor)]
    if not any(isinstance(leaf, Tensor) and is_inexact(leaf) for leaf in tree_leaves(given)):
        trace.on_integers[name] += all(integers)
    elif name not in SHAPE_ONLY and (any(integers) or not any(isinstance(leaf, Tensor) for leaf in made)):
        trace.integers_of_floats = True


def _note_constants(trace: Trace, func: Any, name: str, named: dict[str, Any]) -> None:
    trace.scalars.update(value for value in named.values() if isinstance(value, float))
    trace.scalars.update(float(value) for value in named.values() if _is_scalar(value))
    audited = {}
    for argument in func._schema.arguments:
        if argument.name.startswith(_AUDITED):
            audited[argument.name] = named.get(argument.name, argument.default_value)
    if name in CLAMPS and named["self"].is_floating_point():
        bounds = {k: named.get(k, default) for k, default in CLAMPS[name].items()}
        trace.calls.append(OperatorCall(name, tuple((k, v) for k, v in bounds.items() if isinstance(v, (int, float)))))
    if audited and ("norm" in name or "gelu" in name or "transformer_encoder" in name):
        attributes = tuple((k, v) for k, v in audited.items() if v is not None)
        trace.calls.append(OperatorCall(name, attributes))
        trace.scalars.update(v for _, v in attributes if isinstance(v, float))


def _steps(name: str, named: dict[str, Any], result: Any) -> bool:
    scores = named.get("self")
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        return False
    return name in _ROUNDING or (isinstance(result, Tensor) and not (result.is_floating_point() or result.is_complex()))


def _is_wide(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float64


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0 and value.is_floating_point()


def _note_choice(trace: Trace, func: Any, named: dict[str, Any], result: Any) -> None:
    scores = named.get("self")
    indices = result if isinstance(result, Tensor) else result[-1]
    if isinstance(scores, Tensor) and scores.is_floating_point() and not indices.is_floating_point():
        default = next((a.default_value for a in func._schema.arguments if a.name == "dim"), None)
        trace.choices.append((indices, scores, named.get("dim", default)))


def _cost(name: str, args: Sequence[Any], result: Tensor) -> int:
    if name in _CONVOLUTIONS:
        return 2 * result.numel() * int(args[1][0].numel())
    if name in _PRODUCTS:
        return 2 * result.numel() * int(args[0].shape[-1])
    if name == "addmm":
        return 2 * result.numel() * int(args[1].shape[-1])
    return result.numel()
