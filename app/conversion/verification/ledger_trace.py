"""What an eager forward does with the architecture's tensors: which are reached, in which order, and what is made of
them before the inputs come in.

Exporters fold expressions that depend on weights alone (a transposed weight, 1 + γ, a gathered bias table) into new
initializers. Every such expression is also evaluated by the eager forward itself: this trace sees each operator, marks
the values that no input has touched as *weight-only*, and remembers from which tensors and by which operators they
came. What an exporter folded is then compared with the module's own intermediate values; no table of exporter
patterns is needed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from app.conversion.verification.claims import ConvBnFold

_SHAPE_ONLY = frozenset(
    {"new_zeros", "new_ones", "new_empty", "new_full", "zeros_like", "ones_like", "empty_like", "full_like"}
    | {"new_empty_strided", "sym_size", "sym_numel", "sym_stride"}
)
"""Operators that read a tensor's shape and dtype, never its elements."""

_KEEP_CHANNELS = frozenset(
    {"view", "reshape", "_unsafe_view", "flatten", "unflatten", "transpose", "permute", "t", "contiguous", "clone"}
    | {"alias", "detach", "squeeze", "unsqueeze", "swapaxes", "movedim", "dropout", "feature_dropout"}
)
"""Operators that hand a layer's output on to a batch norm without changing an element."""


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the forward that no input has touched. ``lineage`` are the state-dict keys and buffers it came from.

    A value without ``inputs`` is such a tensor itself, or a constant when its lineage is empty too. ``formula``
    evaluates it again from float64 copies of what it came from; None when an operator wrote in place.
    """

    lineage: frozenset[str]
    inputs: tuple["Value", ...] = ()
    formula: Callable[[], Tensor] | None = None
    arithmetic: bool = False
    """Whether an operator computed new numbers, so that another implementation may round otherwise."""


@dataclass(frozen=True)
class Use:
    """One place where a weight-only value meets the inputs: the operator's turn and the argument's position."""

    turn: int
    argument: int
    operator: str
    value: Value


@dataclass(frozen=True)
class _Affine:
    """The convolution or linear layer that a data value came out of, by the keys of its tensors."""

    turn: int
    weight: str
    bias: str | None
    axis: int
    groups: int


@dataclass(frozen=True)
class FoldSite:
    """A batch norm that directly follows a convolution or linear layer, and the turns of both."""

    fold: ConvBnFold
    layer_turn: int
    norm_turn: int


@dataclass(eq=False)
class EagerTrace:
    """The uses in execution order, the keys reached, where a batch norm follows a layer, and each key's own value."""

    leaf: Mapping[str, Value]
    uses: list[Use] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)
    sites: list[FoldSite] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Data:
    """A value that depends on the inputs. ``affine`` while no element has changed since that layer."""

    affine: _Affine | None = None
    sources: int = 0
    """The tensors of the architecture that took part, one bit for each."""


Offer = Callable[[Tensor, Value], None]


def trace(
    placed: Mapping[str, Tensor], inputs: Mapping[str, Tensor], run: Callable[[], object], offer: Offer
) -> EagerTrace:
    """Run the forward once and watch it.

    ``placed`` are the module's parameters and buffers by name, ``inputs`` the tensors that ``run`` passes to it.
    ``offer`` is called with every weight-only tensor at the moment it exists; nothing is kept of it afterwards.
    Raises whatever the forward raises.
    """
    tracer = _Tracer(placed, inputs, offer)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one fused operator would hide the order of the layers
    try:
        with tracer:
            result = run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    tracer.finish(result)
    return tracer.found


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, placed: Mapping[str, Tensor], inputs: Mapping[str, Tensor], offer: Offer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.offer = offer
        self.turn = 0
        self.known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.written: dict[int, tuple[StorageWeakRef, Value | _Data]] = {}
        self.merged: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.at: dict[tuple[int, int], Value] = {}
        names_at: dict[tuple[int, int], list[str]] = {}
        for name, tensor in placed.items():
            if tensor.numel():
                names_at.setdefault(_address(tensor), []).append(name)
        for address, names in names_at.items():
            self.at[address] = Value(frozenset(names), formula=_widened(placed[names[0]]))
        self.bits = {value.lineage: 1 << place for place, value in enumerate(self.at.values())}
        self.found = EagerTrace({name: value for value in self.at.values() for name in value.lineage})
        for tensor in inputs.values():
            self.known[tensor] = _Data()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.turn += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        origins = [self._origin(tensor) for tensor in tensors]
        result = func(*args, **kwargs)
        operator = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
        if operator in _SHAPE_ONLY:
            self._made(result, Value(frozenset()))
        elif any(isinstance(origin, _Data) for origin in origins) or _random(func, _by_name(func, args, kwargs)):
            self._used(operator, origins, _by_name(func, args, kwargs), result)
        else:
            values = tuple(origin for origin in origins if isinstance(origin, Value))
            if operator == "linear" and len(args) == 3:
                values = (self._product(func, values[:2], args[:2]), values[2])
            self._made(result, self._derived(func, operator, values, args, kwargs))
        self._remember_writes(func, args, kwargs, result)
        return result

    def finish(self, result: object) -> None:
        """Take what the outputs came from as reached, and an output that no input has touched as used."""
        self.turn += 1
        reached = 0
        for position, leaf in enumerate(tree_leaves(result)):
            if isinstance(leaf, Tensor):
                origin = self._origin(leaf)
                reached |= self._bits_of(origin)
                if isinstance(origin, Value) and origin.lineage:
                    self._use(position, "output", origin)
        for lineage, bit in self.bits.items():
            if reached & bit:
                self.found.reached |= lineage

    def _bits_of(self, origin: Value | _Data) -> int:
        """The tensors of the architecture that took part in a value, one bit for each."""
        if isinstance(origin, _Data):
            return origin.sources
        if not origin.inputs:
            return self.bits.get(origin.lineage, 0)
        bits = 0
        for part in origin.inputs:
            bits |= self._bits_of(part)
        return bits

    def _remember_writes(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: object) -> None:
        """What an operator writes in place is seen by every view of that memory, also by older ones."""
        if not hasattr(func, "_schema") or not func._schema.is_mutable:
            return
        named = _by_name(func, args, kwargs)
        origin = next((self.known[leaf] for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), None)
        for argument in func._schema.arguments:
            tensor = named.get(argument.name)
            if argument.is_write and isinstance(tensor, Tensor) and origin is not None:
                storage = tensor.untyped_storage()
                self.written[storage._cdata] = (StorageWeakRef(storage), origin)  # type: ignore[no-untyped-call]

    def _origin(self, tensor: Tensor) -> Value | _Data:
        written = self._written(tensor)
        if written is not None:
            return written
        if tensor in self.known:
            origin: Value | _Data = self.known[tensor]
            return origin
        if _has_memory(tensor):
            value = self.at.get(_address(tensor))
            if value is not None:
                return value
        return Value(frozenset(), formula=_widened(tensor))

    def _written(self, tensor: Tensor) -> Value | _Data | None:
        """What was last written into the tensor's memory, together with what the tensor was before."""
        if not _has_memory(tensor):
            return None
        found = self.written.get(tensor.untyped_storage()._cdata)
        if found is None or found[0].expired():  # type: ignore[no-untyped-call]
            return None
        before, after = self.known.get(tensor), found[1]  # type: ignore[no-untyped-call]
        if before is None or before is after:
            return after
        if tensor not in self.merged or self.merged[tensor][:2] != (before, after):
            self.merged[tensor] = (before, after, self._merge(before, after))
            if isinstance(self.merged[tensor][2], Value):
                self.offer(tensor, self.merged[tensor][2])
        merged: Value | _Data = self.merged[tensor][2]
        return merged

    def _merge(self, before: Value | _Data, after: Value | _Data) -> Value | _Data:
        if isinstance(before, _Data) or isinstance(after, _Data):
            return _Data(None, self._bits_of(before) | self._bits_of(after))
        return Value(before.lineage | after.lineage, (before, after), None, arithmetic=True)

    def _derived(
        self, func: Any, operator: str, values: tuple[Value, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Value:
        lineage = frozenset[str]().union(*(value.lineage for value in values))
        in_place = func._schema.is_mutable if hasattr(func, "_schema") else True
        formula = None
        if not in_place and all(value.formula for value in values):
            formula = self._formula(func, args, kwargs)
        moved = getattr(func, "is_view", False) or operator in _KEEP_CHANNELS or operator in _MOVES
        arithmetic = not moved or any(value.arithmetic for value in values)
        return Value(lineage, values, formula, arithmetic=arithmetic)

    def _product(self, func: Any, values: tuple[Value, ...], args: tuple[Any, ...]) -> Value:
        """A linear layer's product before its bias is added: exporters write the two as separate operators."""
        value = self._derived(func, "linear", values, args, {})
        self._made(func(*args), value)
        return value

    def _formula(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Tensor]:
        def lazy(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            origin = self._origin(leaf)
            return _Lazy(origin.formula) if isinstance(origin, Value) and origin.formula else leaf

        lazy_args, lazy_kwargs = tree_map(lazy, (args, kwargs))

        def evaluate() -> Tensor:
            wide_args, wide_kwargs = tree_map(_force, (lazy_args, lazy_kwargs))
            result: Tensor = func(*wide_args, **wide_kwargs)
            return result

        return evaluate

    def _made(self, result: object, value: Value) -> None:
        """Mark what a weight-only operator gave, and offer it."""
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for leaf in leaves:
            single = (
                value if len(leaves) == 1 else Value(value.lineage, value.inputs, None, arithmetic=value.arithmetic)
            )
            self.known[leaf] = single
            self.offer(leaf, single)

    def _used(self, operator: str, origins: list[Value | _Data], named: dict[str, Any], result: object) -> None:
        """Record what weight-only values an operator on data takes, and which layer its result comes out of."""
        for position, origin in enumerate(origins):
            if isinstance(origin, Value):
                self._use(position, operator, origin)
        affine = None
        if "running_mean" in named and "running_var" in named:
            self._batch_norm(named)
        elif operator in _KEEP_CHANNELS and isinstance(origins[0], _Data):
            affine = origins[0].affine
        else:
            affine = self._affine(operator, named)
        sources = 0
        for origin in origins:
            sources |= self._bits_of(origin)
        made = _Data(affine, sources)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.known[leaf] = made

    def _use(self, position: int, operator: str, value: Value) -> None:
        self.found.uses.append(Use(self.turn, position, operator, value))

    def _key(self, tensor: object) -> str | None:
        """The key whose tensor this is, as it is or transposed."""
        if not isinstance(tensor, Tensor) or not tensor.numel():
            return None
        origin = self._origin(tensor)
        while isinstance(origin, Value) and len(origin.inputs) == 1 and not origin.arithmetic:
            origin = origin.inputs[0]
        if isinstance(origin, Value) and not origin.inputs and origin.lineage:
            return min(origin.lineage)
        return None

    def _affine(self, operator: str, named: dict[str, Any]) -> _Affine | None:
        weight = self._key(named.get("weight", named.get("mat2", named.get("other"))))
        if weight is None:
            return None
        bias = named.get("bias", named.get("self") if operator == "addmm" else None)
        transposed = bool(named.get("transposed")) or "transpose" in operator
        groups = named.get("groups", 1)
        return _Affine(
            self.turn, weight, self._key(bias), 1 if transposed else 0, groups if isinstance(groups, int) else 1
        )

    def _batch_norm(self, named: dict[str, Any]) -> None:
        origin = self._origin(named["input"])
        affine = origin.affine if isinstance(origin, _Data) else None
        mean, variance = self._key(named["running_mean"]), self._key(named["running_var"])
        if affine is None or mean is None or variance is None:
            return
        fold = ConvBnFold(
            part="weight",
            weight=affine.weight,
            bias=affine.bias,
            gamma=self._key(named.get("weight")),
            beta=self._key(named.get("bias")),
            mean=mean,
            variance=variance,
            eps=float(named["eps"]),
            axis=affine.axis,
            groups=affine.groups,
        )
        self.found.sites.append(FoldSite(fold, affine.turn, self.turn))


_MOVES = frozenset(
    {"expand", "slice", "select", "index", "index_select", "gather", "split", "chunk", "cat", "stack", "repeat", "roll"}
    | {"flip", "narrow", "split_with_sizes", "unbind", "copy_", "lift_fresh", "constant_pad_nd", "unfold", "T", "mT"}
    | {"arange", "zeros", "ones", "full", "empty", "scalar_tensor", "embedding", "movedim", "where"}
)
"""Operators that place elements without computing new ones."""


@dataclass(frozen=True)
class _Lazy:
    formula: Callable[[], Tensor]


def _force(leaf: Any) -> Any:
    if isinstance(leaf, _Lazy):
        return leaf.formula()
    if isinstance(leaf, torch.dtype) and leaf.is_floating_point:
        return torch.float64
    return leaf


def _widened(tensor: Tensor) -> Callable[[], Tensor]:
    def widen() -> Tensor:
        return tensor.detach().double() if tensor.is_floating_point() else tensor.detach()

    return widen


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.numel() > 0


def _address(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def _random(func: Any, named: Mapping[str, Any]) -> bool:
    """Whether the operator draws numbers; dropout in eval mode does not."""
    drawing = torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())
    return drawing and named.get("train", named.get("training")) is not False


def _by_name(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if not hasattr(func, "_schema"):
        return dict(kwargs)
    names = [argument.name for argument in func._schema.arguments]
    return dict(zip(names, args, strict=False)) | kwargs
