"""One forward pass on tensors whose sizes are symbols: what a model's Python asks of sizes and values, and where.

A trace, an exported program and eager agree on the sizes that were tried and part on others, because Python asked
something of a size or a value. torch can tell what: on fake tensors (no data, no arithmetic) with symbolic axes, every
question about a size becomes a guard of the ShapeEnv, and one about a value cannot be answered.
"""

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch._functorch import config as functorch_config
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    GuardOnDataDependentSymNode,
    ShapeEnv,
    StatelessSymbolicContext,
    free_unbacked_symbols,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from app.architectures.calling import EagerModel, bind
from app.architectures.module_state import state_kept
from app.architectures.sample import sample_inputs
from app.domain.architecture import Signature
from app.targets.capturing.attention import plain_attention
from app.targets.capturing.place import TORCH, Place, asking, place_of
from app.targets.capturing.quiet import collected, first_line

_FAKE_KERNELS = f"{TORCH}_subclasses/"
"""Fake kernels ask for the memory layout of a result (a convolution's ``batch < 16``); that steers no graph."""
_SEED = 1
_BATCH_NORM = torch.ops.aten.native_batch_norm.default
_LIKE_INPUT = frozenset({_BATCH_NORM, torch.ops.aten.hardsigmoid.default, torch.ops.aten.hardswish.default})
"""Results of the shape of the first argument, for which torch's own decompositions take half the time of a forward."""


@dataclass(frozen=True)
class SizeGuard:
    """A condition on sizes that held, over symbols named like the axes, and the line of the model that asked."""

    condition: sympy.Basic
    place: Place
    by_model: bool
    """Asked by the model's own code; else by a layer of torch for it."""


@dataclass(frozen=True)
class ValueRead:
    """A line at which the model's code asked for a value of its inputs, or for a size that values decide."""

    question: str
    place: Place


Operators = tuple[tuple[str, str], ...]
"""Names of operators in the order of the forward, each with its arguments: sizes as expressions, tensors by number."""


@dataclass(frozen=True)
class Work:
    """The shapes of all tensors that a forward makes, with how often: what its time and memory grow with."""

    shapes: Mapping[tuple[sympy.Expr | int, ...], int]

    def at(self, sizes: Mapping[str, int]) -> float:
        """Elements written by one forward at these sizes."""
        values = {sympy.Symbol(name, integer=True): sympy.Integer(size) for name, size in sizes.items()}

        @lru_cache(None)
        def size_of(dim: sympy.Expr | int) -> float:
            try:
                value = dim if isinstance(dim, int) else dim.xreplace(values)
            except ZeroDivisionError:  # by a number made of sizes, which the code divides by at other sizes only
                return 1.0
            return float(value) if isinstance(value, int) or value.is_number else 1.0

        return sum(count * math.prod(map(size_of, shape)) for shape, count in self.shapes.items())


@dataclass(frozen=True)
class Followed:
    """What one forward told. ``error`` and ``stopped``: why it could be followed no further, and at which line."""

    guards: tuple[SizeGuard, ...]
    reads: tuple[ValueRead, ...]
    operators: Operators
    work: Work
    fixed: frozenset[str] = frozenset()
    """Axes of which the code took the size as a plain number, so that it asked no more questions of it."""
    error: str | None = None
    stopped: Place | None = None
    data_dependent: bool = False
    """It stopped because a value was asked for."""
    too_dear: bool = False
    """It stopped because its processor time was spent."""


class TooDear(Exception):
    """A forward took more processor time than it was given."""


def follow(
    model: EagerModel,
    hints: Mapping[str, int],
    *,
    with_values: bool = False,
    seconds: float = math.inf,
) -> Followed:
    """Run the forward on tensors with a symbol for each axis of ``hints``; a size of 0 or 1 is a number.

    ``with_values``: the tensors have data too, as much as the hints say, so that questions about values are answered
    and the forward goes on. ``seconds``: processor time that it may take. What the module's attributes held is put
    back.
    """
    generator = torch.Generator().manual_seed(_SEED)
    inputs = sample_inputs(model.signature, hints, generator)
    with (
        functorch_config.patch(fake_tensor_propagate_real_tensors=with_values),
        torch.random.fork_rng(devices=[]),
        collected(),
        plain_attention(),
        state_kept(model.module),
    ):
        environment = _Environment()
        mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
        mode.cache_enabled = False  # with symbolic sizes its keys and checks take more time than the kernels
        fake = _symbolic(mode, model.signature, inputs, shared=len({*hints.values()}) == len(hints))
        environment.name_axes(model.signature, fake)
        operators = _Operators(environment, fake.values(), with_values=with_values)
        failure: Exception | None = None
        try:
            args, kwargs = bind(model, fake)
            environment.until = time.process_time() + seconds
            with mode, torch.no_grad(), operators:
                model.module(*args, **kwargs)
        except Exception as raised:  # noqa: BLE001 - whatever the model's code raises without data
            failure = raised
        return environment.followed(operators, failure)


def _symbolic(
    mode: FakeTensorMode, signature: Signature, inputs: Mapping[str, Tensor], *, shared: bool
) -> dict[str, Tensor]:
    """``shared``: equal sizes are one symbol, as those of one axis in several inputs should be."""
    named = DimDynamic.DUCK if shared else DimDynamic.DYNAMIC
    dynamic = {
        spec.name: [named if isinstance(size, str) else DimDynamic.STATIC for size in spec.shape]
        for spec in signature.inputs
    }
    return {
        name: mode.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(dynamic_sizes=dynamic[name]))
        for name, tensor in inputs.items()
    }


class _Environment(ShapeEnv):
    """Notes for each guard which line asked, and which questions were about values that depend on the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.until = math.inf
        """Processor time of this process at which the forward is ended."""
        self._too_dear = False
        self.asked: list[tuple[sympy.Basic, Place, bool]] = []
        self.reads: list[ValueRead] = []
        self.of_inputs: set[sympy.Symbol] = set()
        """Symbols of values and sizes that the inputs' values decide."""
        self._axes: dict[sympy.Symbol, sympy.Symbol] = {}

    def spend(self) -> None:
        """Raise TooDear once the forward's processor time is spent."""
        if time.process_time() > self.until:
            self._too_dear = True
            raise TooDear("the processor time for following the model's code is spent")

    def name_axes(self, signature: Signature, fake: Mapping[str, Tensor]) -> None:
        for spec in signature.inputs:
            for declared, size in zip(spec.shape, fake[spec.name].shape, strict=True):
                if isinstance(declared, str) and isinstance(size, torch.SymInt):
                    self._axes[size.node.expr] = sympy.Symbol(declared, integer=True)

    def evaluate_expr(self, orig_expr: sympy.Basic, *args: Any, **kwargs: Any) -> sympy.Basic:
        self.spend()
        known = len(self.guards)
        try:
            result = super().evaluate_expr(orig_expr, *args, **kwargs)
        except GuardOnDataDependentSymNode:
            self._note_read(orig_expr)
            raise
        if self.real_tensor_prop_unbacked_vals and not getattr(result, "free_symbols", ()):
            self._note_read(orig_expr)
        for guard in self.guards[known:]:
            place, asker = asking()
            if not asker.startswith(_FAKE_KERNELS):
                self.asked.append((guard.expr, place, not asker.startswith(TORCH)))
        return result

    def _note_read(self, question: sympy.Basic) -> None:
        """A question about a value or a size that the inputs decide, unless a layer of torch checks its arguments."""
        if free_unbacked_symbols(question) & self.of_inputs:
            place, asker = asking()
            if not asker.startswith(TORCH):
                self.reads.append(ValueRead(str(question), place))

    def followed(self, operators: "_Operators", failure: Exception | None) -> Followed:
        guards = {
            (expr, place): SizeGuard(expr, place, by_model)
            for condition, place, by_model in self.asked
            for expr in [condition.xreplace(self._axes)]
            if expr.free_symbols and expr.free_symbols <= set(self._axes.values())
        }
        shapes = Counter(
            tuple(dim.xreplace(self._axes) if isinstance(dim, sympy.Basic) else dim for dim in shape)
            for shape in operators.shapes.elements()
        )
        fixed = {str(axis) for symbol, axis in self._axes.items() if self.replace(symbol).is_number}
        return Followed(
            tuple(guards.values()),
            tuple(dict.fromkeys(self.reads)),
            tuple(operators.seen),
            Work(shapes),
            frozenset(fixed),
            error=None if failure is None else f"{type(failure).__name__}: {first_line(str(failure))}",
            stopped=None if failure is None or self._too_dear else place_of(failure),
            data_dependent=isinstance(failure, GuardOnDataDependentSymNode),
            too_dear=self._too_dear,
        )


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records each operator, and follows which tensors depend on the values of the inputs."""

    def __init__(self, environment: _Environment, inputs: Any, *, with_values: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._with_values = with_values
        self.seen: list[tuple[str, str]] = []
        self.shapes: Counter[tuple[Any, ...]] = Counter()
        self._environment = environment
        self._numbers: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._count = 0
        self._dependent: WeakIdKeyDictionary = WeakIdKeyDictionary({tensor: True for tensor in inputs})

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._environment.spend()
        self.seen.append((str(func), str(tree_map(self._told, (args, kwargs)))))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        dependent = any(tensor in self._dependent for tensor in given)
        if dependent and func is torch.ops.aten.equal.default:
            self._environment.reads.append(ValueRead("torch.equal", asking()[0]))
        result = self._result(func, args, kwargs)
        written = [tensor for tensor in given if dependent and func._schema.is_mutable]
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.shapes[tuple(_expression(size) for size in leaf.shape)] += 1
                self._told(leaf)
                if dependent:
                    self._dependent[leaf] = True
                    self._environment.of_inputs |= free_unbacked_symbols(leaf)
            elif dependent and isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool):
                self._environment.of_inputs |= free_unbacked_symbols(leaf)
        for tensor in written:
            self._dependent[tensor] = True
            if tensor._base is not None:
                self._dependent[tensor._base] = True
        return result

    def _result(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is torch.ops.aten.constant_pad_nd.default:
            return torch._refs.constant_pad_nd(*args, **kwargs)  # its C++ kernel takes sizes as plain numbers
        if not self._with_values and func in _LIKE_INPUT and not (func is _BATCH_NORM and args[5]):
            like = torch.empty_like(args[0])
            return (like, args[0].new_empty(0), args[0].new_empty(0)) if func is _BATCH_NORM else like
        return func(*args, **kwargs)

    def _told(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value not in self._numbers:
                self._numbers[value] = self._count
                self._count += 1
            return f"%{self._numbers[value]}"
        return str(_expression(value)) if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool) else value


def _expression(value: Any) -> Any:
    return value.node.expr if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool) else value
