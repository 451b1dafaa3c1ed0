"""Sizes on both sides of a condition that a model's code put to the sizes of its inputs."""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product

import sympy  # type: ignore[import-untyped]
from sympy.printing.str import StrPrinter  # type: ignore[import-untyped]
from torch.utils._sympy.printers import PythonPrinter

from app.domain.architecture import Axis, Signature

Sizes = dict[str, int]

_NEAR = 512
"""Admissible sizes that are looked at one by one, on either side of the exported one; beyond them each double."""
_FARTHEST = 1 << 16
"""Size up to which an axis is looked at that declares no greatest one."""
_COMBINED = 4096
"""Combinations of sizes of several axes that are looked at."""
_FUNCTIONS = {"math": math, "Eq": operator.eq, "Ne": operator.ne, "Max": max, "Min": min}


def far_sides(
    condition: sympy.Basic, signature: Signature, start: Mapping[str, int], path: Sequence[sympy.Basic] = ()
) -> list[Sizes]:
    """Declared sizes at which ``condition``, which holds at ``start``, does not; nearest to ``start`` first.

    ``path``: conditions that led to the question and hold at ``start``. They hold at the sizes too, where there are
    such: elsewhere the code does not ask.
    """
    asked = [_test(earlier) for earlier in path]
    holds = _test(condition)
    names = {str(symbol) for each in (condition, *path) for symbol in each.free_symbols}

    def unreached(sizes: Sizes) -> bool:
        return holds(sizes) or not all(led(sizes) for led in asked)

    within = _across(unreached, names, signature, start) if path else []
    return within or _across(holds, {str(symbol) for symbol in condition.free_symbols}, signature, start)


def _across(
    holds: Callable[[Sizes], bool], names: Iterable[str], signature: Signature, start: Mapping[str, int]
) -> list[Sizes]:
    """Above and below, one axis changed at a time; where that does not reach the other side, several at once.

    After each its neighbour on the near side, and the next one beyond: ``min(50, n)`` is n at 50 too.
    """
    axes = [signature.axis(name) for name in sorted(names)]
    found: list[Sizes] = []
    for axis in axes:
        for sizes in (_above(axis, start[axis.name]), _below(axis, start[axis.name])):
            found += _crossing(holds, axis, sizes, dict(start))
    return found if found or len(axes) < 2 else _joint(holds, axes, dict(start))


def smallest_size(axis: Axis) -> int:
    """The least admissible size."""
    return -(-max(axis.minimum, 0) // axis.multiple_of) * axis.multiple_of


def greatest_size(axis: Axis) -> int:
    """The greatest admissible size, or _FARTHEST where none is declared."""
    return (_FARTHEST if axis.maximum is None else axis.maximum) // axis.multiple_of * axis.multiple_of


class _Written(PythonPrinter):
    """As a person writes it: ``length - width`` and not ``length + (-1)*width``."""

    _print_Add = StrPrinter._print_Add
    _print_Mul = StrPrinter._print_Mul

    def _print_Float(self, number: sympy.Float) -> str:
        return repr(float(number))


def written(condition: sympy.Basic) -> str:
    """The condition in Python's own notation, such as ``length % 7 == 0``."""
    return str(_Written().doprint(condition))


def _test(condition: sympy.Basic) -> Callable[[Sizes], bool]:
    """The condition as a Python function, which takes a hundredth of the time of substituting numbers in it."""
    names = {
        symbol: sympy.Symbol(f"size{number}", integer=True) for number, symbol in enumerate(condition.free_symbols)
    }
    code = compile(written(condition.xreplace(names)), "<condition>", "eval")

    def holds(sizes: Sizes) -> bool:
        values = {str(name): sizes[str(symbol)] for symbol, name in names.items()}
        try:
            return bool(eval(code, {**_FUNCTIONS, **values}))
        except (ArithmeticError, ValueError):  # a remainder by zero is no side
            return True

    return holds


def _above(axis: Axis, start: int) -> list[int]:
    step, last = axis.multiple_of, greatest_size(axis)
    near = list(range(start + step, min(start + _NEAR * step, last) + 1, step))
    return near + _doubling(near[-1] if near else start, step, last)


def _doubling(size: int, step: int, last: int) -> list[int]:
    sizes = []
    while size < last:
        size = min(max(2 * size, size + step) // step * step, last)
        sizes.append(size)
    return sizes


def _below(axis: Axis, start: int) -> list[int]:
    step, least = axis.multiple_of, smallest_size(axis)
    near = list(range(start - step, max(start - _NEAR * step, least) - 1, -step))
    return near if not near or near[-1] <= least else [*near, least]


def _crossing(holds: Callable[[Sizes], bool], axis: Axis, candidates: list[int], start: Sizes) -> list[Sizes]:
    """The first candidate at which the condition does not hold, drawn near by bisection, and the size before it."""
    name, step = axis.name, axis.multiple_of
    size = next((size for size in candidates if not holds({**start, name: size})), None)
    if size is None:
        return []
    passed = [start[name], *candidates[: candidates.index(size)]]
    before = passed[-1]
    while abs(size - before) > step:
        middle = before + (size - before) // step // 2 * step
        if holds({**start, name: middle}):
            before = middle
        else:
            size = middle
    beyond = size + step if size > before else size - step
    admitted = smallest_size(axis) <= beyond <= greatest_size(axis)
    return [{**start, name: each} for each in (size, before, *((beyond,) if admitted else ()))]


def _joint(holds: Callable[[Sizes], bool], axes: list[Axis], start: Sizes) -> list[Sizes]:
    crossed = next((sizes for sizes in _combinations(axes, start) if not holds(sizes)), None)
    if crossed is None:
        return []
    before = crossed
    for axis in axes:  # towards the start, one axis after the other, as near as the far side reaches
        for size in _steps_between(axis, start[axis.name], crossed[axis.name]):
            if not holds({**crossed, axis.name: size}):
                crossed = {**crossed, axis.name: size}
                break
            before = {**crossed, axis.name: size}
    beyond = {**crossed, axes[-1].name: crossed[axes[-1].name] + axes[-1].multiple_of}
    inside = beyond[axes[-1].name] <= greatest_size(axes[-1])
    return [crossed, *((before,) if holds(before) else ()), *((beyond,) if inside else ())]


def _combinations(axes: list[Axis], start: Sizes) -> Iterator[Sizes]:
    """Combinations of a few sizes of each axis, those of fewer elements first."""
    each = [sorted({start[axis.name], *_spread(axis)}) for axis in axes]
    while math.prod(map(len, each)) > _COMBINED:
        each = [sizes[::2] if len(sizes) > 2 else sizes for sizes in each]
    names = [axis.name for axis in axes]
    for sizes in sorted(product(*each), key=math.prod):
        yield {**start, **dict(zip(names, sizes, strict=True))}


def _spread(axis: Axis) -> list[int]:
    least = smallest_size(axis)
    return [least, *_doubling(max(least, axis.multiple_of), axis.multiple_of, greatest_size(axis))]


def _steps_between(axis: Axis, start: int, end: int) -> list[int]:
    step = axis.multiple_of if end >= start else -axis.multiple_of
    sizes = range(start, end, step)
    return [start, *list(sizes)[:: max(1, len(sizes) // _NEAR)]]
