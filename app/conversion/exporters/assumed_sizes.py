"""Sizes of dynamic axes for which a captured graph was not made, although the architecture declares them.

torch.export follows one way through the code and keeps, as ranges and assertions on its symbols, for which sizes that
way is taken; the ONNX file does not say so.
"""

from collections.abc import Iterator

import sympy  # type: ignore[import-untyped]
import torch
from torch.export import ExportedProgram
from torch.utils._sympy.value_ranges import bound_sympy

from app.conversion.exporters.other_sizes import can_be_tried, failure_at
from app.conversion.exporters.request import ExportRequest
from app.domain.architecture import Axis

ASSUMED_SIZES = "Assumed sizes"
"""How the warning begins that says for which sizes of an axis a graph was made."""

_TOLD_APART = 512
"""Admissible sizes of an axis that are held against what was assumed; beyond them only the ends of the ranges."""
_LEAST = 2
"""torch.export may leave out sizes below this one, and the graph take them all the same: the dims certificate tells."""


def assumed_sizes(program: ExportedProgram, request: ExportRequest) -> tuple[str, ...]:
    """A warning for each axis of which the program assumes fewer sizes than declared, with the sizes it was made for.

    A size at which the model itself does not run is no objection.
    """
    return tuple(
        f"{ASSUMED_SIZES}: axis {axis.name}: the graph was made for {words}, and the model also runs at size {beyond}"
        for axis, assumed in _assumptions(program, request)
        for words, beyond in [(assumed.words(), _beyond(request, axis, assumed))]
        if beyond is not None
    )


class _Assumed:
    """What a program assumes of one size."""

    def __init__(self, symbol: sympy.Expr, program: ExportedProgram, assertions: tuple[sympy.Expr, ...]) -> None:
        bounds = bound_sympy(symbol, program.range_constraints)
        self._lower = int(bounds.lower) if isinstance(bounds.lower, sympy.Integer) else 0
        self.upper = int(bounds.upper) if isinstance(bounds.upper, sympy.Integer) else None
        self._symbol = symbol
        self._assertions = tuple(a for a in assertions if a.free_symbols == {symbol})

    def holds(self, size: int) -> bool:
        inside = size >= self._lower and (self.upper is None or size <= self.upper)
        return inside and not any(a.subs(self._symbol, size) == sympy.false for a in self._assertions)

    def words(self) -> str:
        upper = "upwards" if self.upper is None else f"to {self.upper}"
        said = " and ".join(str(assertion.subs(self._symbol, sympy.Symbol("size"))) for assertion in self._assertions)
        return f"sizes {self._lower} {upper}{f' with {said}' if said else ''}"


def _assumptions(program: ExportedProgram, request: ExportRequest) -> Iterator[tuple[Axis, _Assumed]]:
    """Each dynamic axis once, with what the program assumes of it."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    seen: set[str] = set()
    for spec, name in zip(request.signature.inputs, program.graph_signature.user_inputs, strict=False):
        for size, found in zip(spec.shape, getattr(values.get(str(name)), "shape", ()), strict=False):
            if isinstance(size, str) and isinstance(found, torch.SymInt) and size not in seen:
                seen.add(size)
                yield request.signature.axis(size), _Assumed(found.node.expr, program, _assertions(found))


def _assertions(size: torch.SymInt) -> tuple[sympy.Expr, ...]:
    """All that the program asserts of symbols, in whatever way; what it checks of other values is not among it."""
    environment = size.node.shape_env
    groups = environment.deferred_runtime_asserts.values() if environment is not None else ()
    return tuple(deferred.expr for group in groups for deferred in group)


def _beyond(request: ExportRequest, axis: Axis, assumed: _Assumed) -> int | None:
    """A declared size that was not assumed and at which the model runs: the least or the greatest looked at."""
    left_out = [size for size in _declared_sizes(axis, assumed) if not assumed.holds(size)]
    return next((size for size in dict.fromkeys((*left_out[:1], *left_out[-1:])) if _runs(request, axis, size)), None)


def _declared_sizes(axis: Axis, assumed: _Assumed) -> list[int]:
    step = axis.multiple_of
    least = -(-max(axis.minimum, _LEAST) // step) * step
    sizes = set(range(least, least + _TOLD_APART * step, step))
    if assumed.upper is not None:
        sizes.add((assumed.upper // step + 1) * step)
    if axis.maximum is not None:
        sizes.add(axis.maximum // step * step)
    return sorted(size for size in sizes if size >= least and (axis.maximum is None or size <= axis.maximum))


def _runs(request: ExportRequest, axis: Axis, size: int) -> bool:
    """Whether the model takes this size. One that this machine could not hold counts as one that it does not take."""
    sizes = {axis.name: size}
    return can_be_tried(request.signature, sizes) and failure_at(request, sizes) is None
