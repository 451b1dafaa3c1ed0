"""What an eager forward does with the architecture's tensors: which are reached, in which order, and what is made of
them before the inputs come in.

Exporters fold expressions that depend on weights alone (a transposed weight, 1 + γ, a gathered bias table) into new
initializers. Every such expression is also evaluated by the eager forward itself: this trace sees each operator, marks
the values that no input has touched as *weight-only*, and remembers from which tensors and by which operators they
came. What an exporter folded is then compared with the module's own intermediate values; no table of exporter
patterns is needed.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from app.conversion.verification.ledger.computations import Computations
from app.conversion.verification.ledger.formula import Formula, call_formula, leaf_formula
from app.conversion.verification.ledger.forward import (
    Data,
    EagerTrace,
    Offer,
    Use,
    Value,
)
from app.conversion.verification.ledger.operators import (
    SHAPE_ONLY,
    SHOWN,
    adds,
    by_name,
    computes,
    draws,
    name_of,
    writes,
)
from app.conversion.verification.ledger.sites import OperatorCall, site_of


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
        self.computations = Computations(placed, inputs.values())
        self.computation = 0
        """The number of what the operator of this turn computes."""
        self.known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.written: dict[int, tuple[StorageWeakRef, Value | Data]] = {}
        self.merged: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.at: dict[tuple[int, int], Value] = {}
        names_at: dict[tuple[int, int], list[str]] = {}
        for name, tensor in placed.items():
            if tensor.numel():
                names_at.setdefault(_address(tensor), []).append(name)
        for address, names in names_at.items():
            self.at[address] = Value(frozenset(names), formula=leaf_formula(placed[names[0]]))
        self.placed = sorted(self.at)
        self.starts = [start for start, _ in self.placed]
        self.ends = [start + size for start, size in self.placed]
        self.entries: list[int] = []
        """Turns at which a value with a lineage met the inputs; their places are the bits of ``influences``."""
        self.live = 0
        self.read = False
        """Whether Python has seen a value of the inputs, whose influence cannot be followed."""
        self.found = EagerTrace({name: value for value in self.at.values() for name in value.lineage})
        for tensor in inputs.values():
            self.known[tensor] = Data()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.turn += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        origins = [self._origin(tensor) for tensor in tensors]
        result = func(*args, **kwargs)
        operator, named = name_of(func), by_name(func, args, kwargs)
        again = not (writes(func) or draws(func, named) or any(self._last_write(tensor) for tensor in tensors))
        self.computation = self.computations.call(func, args, kwargs, result, again=again)
        if operator in SHAPE_ONLY:
            self._made(result, Value(frozenset()))
        elif any(isinstance(origin, Data) for origin in origins) or draws(func, named):
            self._used(operator, tensors, origins, named, result)
        else:
            values = tuple(origin for origin in origins if isinstance(origin, Value))
            if operator == "_local_scalar_dense" and tensors[0].is_floating_point():
                self.live |= self._influences(
                    0, operator, values[0]
                )  # a Python number: its influence cannot be followed
            if "running_mean" in named and isinstance(named.get("input"), Tensor):
                self._moments(named["input"], values[0])
            if operator == "linear" and len(args) == 3:
                values = (self._product(func, values[:2], args[:2]), values[2])
            self._made(result, self._derived(func, values, args, kwargs))
        if writes(func):
            self._remember_writes(func, named, result)
        return result

    def finish(self, result: object) -> None:
        """Keep the uses that have an influence on what the forward returns; an untouched value in it is one of them."""
        self._next_turn()
        for position, leaf in enumerate(tree_leaves(result)):
            if isinstance(leaf, Tensor):
                origin = self._origin(leaf)
                self.live |= self._influences(position, "output", origin)
                self.found.constant.append(isinstance(origin, Value) and not self.read)
        turns = {turn for place, turn in enumerate(self.entries) if self.live >> place & 1}
        self.found.uses[:] = [use for use in self.found.uses if use.turn in turns]
        self.found.reached.update(*(use.value.lineage for use in self.found.uses))

    def _next_turn(self) -> None:
        self.turn += 1
        self.computation = self.computations.another()

    def _influences(self, position: int, operator: str, origin: Value | Data, tensor: Tensor | None = None) -> int:
        """What has come into an operand; a weight-only value comes in now, which is recorded as its use."""
        if isinstance(origin, Data):
            return origin.influences
        if not origin.lineage:
            return 0
        if not self.entries or self.entries[-1] != self.turn:
            self.entries.append(self.turn)
        nothing = tensor is not None and adds(operator, position) and not bool(tensor.any())
        zeros = tensor.numel() if tensor is not None and nothing else 0
        self.found.uses.append(Use(self.turn, position, operator, origin, self.computation, zeros))
        return 1 << (len(self.entries) - 1)

    def _remember_writes(self, func: Any, named: dict[str, Any], result: object) -> None:
        """What an operator writes in place is seen by every view of that memory, also by older ones."""
        origin = next((self.known[leaf] for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), None)
        for argument in func._schema.arguments if hasattr(func, "_schema") else ():
            tensor = named.get(argument.name)
            if argument.is_write and isinstance(tensor, Tensor) and origin is not None:
                storage = tensor.untyped_storage()
                self.written[storage._cdata] = (StorageWeakRef(storage), origin)  # type: ignore[no-untyped-call]

    def _origin(self, tensor: Tensor) -> Value | Data:
        written = self._written(tensor)
        if written is not None:
            return written
        before = self._before_writes(tensor)
        if before is None:
            before = self.known[tensor] = Value(frozenset(), formula=leaf_formula(tensor))
            self.offer(tensor, before)
        return before

    def _before_writes(self, tensor: Tensor) -> Value | Data | None:
        """What a tensor was when it was made; None for one that was never seen, a constant that the module keeps."""
        if tensor in self.known:
            origin: Value | Data = self.known[tensor]
            return origin
        if not _has_memory(tensor):
            return None
        return self.at.get(_address(tensor)) or self._inside(tensor)

    def _inside(self, tensor: Tensor) -> Value | None:
        """A view of a parameter or buffer that was made before the forward ran."""
        place = bisect_right(self.starts, tensor.data_ptr()) - 1
        if place < 0 or tensor.data_ptr() >= self.ends[place]:
            return None
        whole = self.at[self.placed[place]]
        return Value(whole.lineage, (whole,), leaf_formula(tensor))

    def _written(self, tensor: Tensor) -> Value | Data | None:
        """What was last written into the tensor's memory, together with what the tensor was before."""
        after = self._last_write(tensor)
        if after is None:
            return None
        before = self._before_writes(tensor)
        if before is None or before is after:
            return after
        if tensor not in self.merged or self.merged[tensor][:2] != (before, after):
            self.merged[tensor] = (before, after, self._merge(before, after))
            if isinstance(self.merged[tensor][2], Value):
                self.offer(tensor, self.merged[tensor][2])
        merged: Value | Data = self.merged[tensor][2]
        return merged

    def _last_write(self, tensor: Tensor) -> Value | Data | None:
        """What was last written into any part of the tensor's memory."""
        found = self.written.get(tensor.untyped_storage()._cdata) if _has_memory(tensor) else None
        return None if found is None or found[0].expired() else found[1]  # type: ignore[no-untyped-call]

    def _merge(self, before: Value | Data, after: Value | Data) -> Value | Data:
        if isinstance(before, Data) or isinstance(after, Data):
            self._next_turn()
            return Data(None, self._influences(0, "write", before) | self._influences(1, "write", after))
        return Value(before.lineage | after.lineage, (before, after), None, arithmetic=True)

    def _derived(self, func: Any, values: tuple[Value, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        lineage = frozenset[str]().union(*(value.lineage for value in values))
        formula = None
        if not writes(func) and all(value.formula for value in values):
            formula = call_formula(func, args, kwargs, self._formula_of)
        arithmetic = computes(func) or any(value.arithmetic for value in values)
        return Value(lineage, values, formula, arithmetic=arithmetic)

    def _product(self, func: Any, values: tuple[Value, ...], args: tuple[Any, ...]) -> Value:
        """A linear layer's product before its bias is added: exporters write the two as separate operators."""
        value = self._derived(func, values, args, {})
        self._made(func(*args), value)
        return value

    def _moments(self, tensor: Tensor, value: Value) -> None:
        """Mean and variance of a standardised weight: exporters write and fold them as operators of their own."""
        axes = [axis for axis in range(tensor.ndim) if axis != 1]
        for moment in (torch.mean, partial(torch.var, correction=0)):
            arguments: tuple[Any, ...] = (tensor, axes)
            formula = call_formula(moment, arguments, {}, self._formula_of) if value.formula is not None else None
            self._made(moment(*arguments), Value(value.lineage, (value,), formula, arithmetic=True))

    def _formula_of(self, tensor: Tensor) -> Formula | None:
        origin = self._origin(tensor)
        return origin.formula if isinstance(origin, Value) else None

    def _made(self, result: object, value: Value) -> None:
        """Mark what a weight-only operator gave, and offer it."""
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for leaf in leaves:
            single = (
                value if len(leaves) == 1 else Value(value.lineage, value.inputs, None, arithmetic=value.arithmetic)
            )
            self.known[leaf] = single
            self.offer(leaf, single)

    def _used(
        self,
        operator: str,
        tensors: list[Tensor],
        origins: list[Value | Data],
        named: dict[str, Any],
        result: object,
    ) -> None:
        """Record what weight-only values an operator on data takes, and which layer its result comes out of."""
        influences = 0
        self.read = self.read or operator in SHOWN
        for position, (tensor, origin) in enumerate(zip(tensors, origins, strict=True)):
            influences |= self._influences(position, operator, origin, tensor)
        site = site_of(OperatorCall(self.turn, operator, origins, named, self._origin))
        if site is not None and site.steps:
            self.found.sites.append(site)
        made = Data(site, influences)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.known[leaf] = made


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.numel() > 0


def _address(tensor: Tensor) -> tuple[int, int]:
    """Where the tensor's memory starts, and how many bytes it has."""
    return tensor.data_ptr(), tensor.nbytes
