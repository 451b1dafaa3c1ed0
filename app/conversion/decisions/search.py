"""What a model's Python decides on the sizes and values of its inputs, and the sizes at which to try the other way.

No rule says which decision matters: artifact and model are run on both sides of each (checks/decisions.py).
"""

import heapq
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import sympy  # type: ignore[import-untyped]

from app.architectures.calling import EagerModel
from app.conversion.decisions.nearest_sizes import Sizes, far_sides, greatest_size, smallest_size, written
from app.conversion.decisions.symbolic_forward import Followed, SizeGuard, ValueRead, Work, follow
from app.conversion.decisions.trace_comparison import differing_sizes
from app.domain.architecture import Axis, Signature
from app.targets.capturing.place import Place
from app.targets.capturing.side import is_test

OPERATORS = 4_000
"""Operators to follow in all forwards after the first: a small net at every size of interest, swin_t at two."""
LEAST_OPERATORS = 150
"""That a forward counts at least, for what it costs beside its operators."""
FIRST_SECONDS = 30.0
"""Processor time of the first forward, ten times what one of 2,000 operators takes; and once more where it needs data.
Sizes that make long expressions cost without bound."""
LATER_SECONDS = 5.0
"""Processor time of the forwards from other sizes, or as much as the first took, where that is more; of the traces that
are compared likewise."""
UNROLLED = 4
"""Times as many operators as at the start from which an axis is unrolled, and not followed to greater sizes."""
SIDES = 4
"""Sizes to run for one axis whose size the code takes as a number."""
TRACED = 3
"""Sizes of an axis whose traces are compared, near and far each, where the forward cannot be followed."""
_NEAR = 8
_GREATEST = 4096
"""Size up to which an axis without a declared greatest size is looked at."""


@dataclass(frozen=True)
class SizeDecision:
    """A condition on sizes that held for the exported ones, and declared sizes on its other side, nearest first."""

    condition: str
    place: Place | None
    """The line that asks; None where it is known by its effect only."""
    by_model: bool
    """Asked by the model's own code; else by a layer of torch."""
    sides: tuple[Sizes, ...]
    test: str | None = None
    """The condition as a graph can hold it (targets/capturing/side.py)."""


@dataclass(frozen=True)
class Decisions:
    """All that could be found. ``unfollowed``: why the forward could be followed no further, and at which line."""

    sizes: tuple[SizeDecision, ...] = ()
    values: tuple[ValueRead, ...] = ()
    work: Work = field(default_factory=lambda: Work({}))
    unfollowed: str | None = None
    stopped: Place | None = None
    too_dear: bool = False
    """The first forward was ended before its time, so that decisions behind that are not known."""
    left_out: tuple[Sizes, ...] = ()
    """Sizes at which the code would have been followed, had there been time."""


def find_decisions(model: EagerModel) -> Decisions:
    """Follow the forward from the exported sizes, and again from each size at which the model's own code turns."""
    search = _Search(model)
    first = search.first()
    if first.error is not None and not first.operators and not first.too_dear:
        return Decisions(unfollowed=first.error, stopped=first.stopped)  # the model refuses its inputs
    search.take(first, search.start)
    search.look_beyond()
    search.spread(first)
    if first.error is None:
        search.look_at_one()
    else:
        search.compare_traces()
    return Decisions(
        tuple(search.found()),
        tuple(search.values),
        first.work,
        first.error,
        first.stopped,
        first.too_dear,
        tuple(search.left_out),
    )


class _Search:
    """Decisions found so far, from one start to the sizes that they lead to."""

    def __init__(self, model: EagerModel) -> None:
        self._model = model
        self.start = distinct_sizes(model.signature)
        self.values: dict[ValueRead, None] = {}
        self.left_out: list[Sizes] = []
        self._seen: list[Sizes] = [self.start]
        self._left = OPERATORS
        self._seconds = self._first_seconds = LATER_SECONDS
        self._guards: dict[tuple[str, Place | None], tuple[SizeGuard, list[Sizes]]] = {}
        """By condition, and for what the model's own code asked by its line."""
        self._beyond: list[tuple[float, int, Sizes]] = []
        """Far sides to follow the code from: how far from the start, in which order found, and the sizes."""
        self._unnamed: dict[str, SizeDecision] = {}

    def first(self) -> Followed:
        """The forward from the exported sizes; what it takes, others may take together."""
        began = time.process_time()
        first = self._followed(self.start, FIRST_SECONDS)
        self._seconds = self._first_seconds = max(LATER_SECONDS, time.process_time() - began)
        return first

    def _followed(self, hints: Mapping[str, int], seconds: float) -> Followed:
        """One forward; once more with data where it asks for values, if that leads further."""
        followed = follow(self._model, hints, seconds=seconds)
        if followed.data_dependent:
            answered = follow(self._model, hints, with_values=True, seconds=seconds)
            if answered.too_dear:  # where it would have stopped is not known
                return replace(followed, reads=(*followed.reads, *answered.reads), too_dear=True)
            if len(answered.operators) >= len(followed.operators):
                return answered
        return followed

    def take(self, followed: Followed, hints: Mapping[str, int]) -> None:
        """Note what was asked; the other side of what the model's own code asked is to be looked at."""
        self.values.update(dict.fromkeys(followed.reads))
        path: list[sympy.Basic] = []
        for guard in followed.guards:
            if not {str(symbol) for symbol in guard.condition.free_symbols} <= followed.fixed:
                self._note(guard, hints, path)  # ``spread`` looks at the axes of the others
                if guard.by_model:
                    path.append(guard.condition)

    def _note(self, guard: SizeGuard, hints: Mapping[str, int], path: Sequence[sympy.Basic]) -> None:
        place = guard.place if guard.by_model else None
        if any((str(asked), place) in self._guards for asked in (guard.condition, sympy.Not(guard.condition))):
            return
        sides = far_sides(guard.condition, self._model.signature, hints, path)
        self._guards[str(guard.condition), place] = guard, sides
        if guard.by_model and sides:
            heapq.heappush(self._beyond, (self._distance(sides[0]), len(self._guards), sides[0]))

    def _distance(self, sizes: Sizes) -> float:
        return sum(abs(math.log2(max(size, 0.5) / self.start[axis])) for axis, size in sizes.items())

    def look_beyond(self) -> None:
        """Follow the model's own code on the other sides of its questions, nearest first, and of those asked there."""
        while self._beyond:
            _, _, sizes = heapq.heappop(self._beyond)
            if sizes in self._seen:
                continue
            self._seen.append(sizes)
            followed = self._further(sizes)
            if followed is not None and followed.error is None:
                self.take(followed, sizes)

    def look_at_one(self) -> None:
        """Likewise from a size of 1, which a symbol never is: whether it is that, the code need not ask."""
        for axis in self._model.signature.axes:
            if smallest_size(axis) <= 1 and axis.multiple_of == 1:
                heapq.heappush(self._beyond, (0.0, len(self._beyond), {**self.start, axis.name: 1}))
        self.look_beyond()

    def _further(self, sizes: Sizes) -> Followed | None:
        """The forward from other sizes; None where what it would cost is spent, which is noted."""
        if self._left > 0 and self._seconds > 0:
            began = time.process_time()
            followed = self._followed(sizes, self._seconds)
            self._seconds -= time.process_time() - began
            self._left -= max(len(followed.operators), LEAST_OPERATORS)
            if not followed.too_dear:
                return followed
        self.left_out.append(sizes)
        return None

    def spread(self, first: Followed) -> None:
        """Other sizes of axes that the code took as numbers: those at which it calls other operators."""
        for axis in self._model.signature.axes:
            if axis.name in first.fixed:
                place = next((g.place for g in first.guards if axis.name in map(str, g.condition.free_symbols)), None)
                self._unnamed[axis.name] = SizeDecision(
                    f"{axis.name} = {self.start[axis.name]}", place, False, tuple(self._others(axis, first))
                )

    def _others(self, axis: Axis, first: Followed) -> list[Sizes]:
        called: list[Sizes] = []
        otherwise: list[Sizes] = []
        for size in _sizes_of_interest(axis, self.start[axis.name]):
            sizes = {**self.start, axis.name: size}
            followed = self._further(sizes) if _distinct(sizes, self._model.signature) else None
            if followed is None:
                continue
            self.values.update(dict.fromkeys(followed.reads))
            if followed.operators == first.operators or (followed.error and not first.error):
                continue
            same_names = [name for name, _ in followed.operators] == [name for name, _ in first.operators]
            (otherwise if same_names else called).append(sizes)
            if len(followed.operators) > UNROLLED * len(first.operators):
                break
        return _ends(called, SIDES) + _ends(otherwise, SIDES)

    def compare_traces(self) -> None:
        """What the symbolic forward did not reach: traces of the model at other sizes, as long as it took itself."""
        ends = time.process_time() + self._first_seconds
        for axis in self._model.signature.axes:
            near = _sizes_of_interest(axis, self.start[axis.name])
            sizes = dict.fromkeys((*near[:TRACED], *near[-TRACED:]))
            others = self._until(ends, [{**self.start, axis.name: size} for size in sizes])
            differing = differing_sizes(self._model, self.start, others)
            if differing:
                condition = f"{axis.name} = {self.start[axis.name]}"
                known = self._unnamed.get(axis.name)
                sides = (*(known.sides if known else ()), *differing)
                self._unnamed[axis.name] = SizeDecision(condition, known.place if known else None, False, sides)

    def _until(self, ends: float, others: Iterable[Sizes]) -> Iterator[Sizes]:
        """Those for which there is processor time; the rest is noted."""
        for sizes in others:
            if time.process_time() < ends:
                yield sizes
            else:
                self.left_out.append(sizes)

    def found(self) -> Iterator[SizeDecision]:
        axes = {axis.name for axis in self._model.signature.axes}
        of_the_model = {condition for condition, place in self._guards if place is not None}
        for (condition, place), (guard, sides) in self._guards.items():
            if sides and (place is not None or condition not in of_the_model):
                asked = written(guard.condition)
                test = asked if is_test(asked, axes) else None
                yield SizeDecision(asked, guard.place, guard.by_model, tuple(sides), test)
        yield from (decision for decision in self._unnamed.values() if decision.sides)


def distinct_sizes(signature: Signature) -> Sizes:
    """A size of at least 2 for each axis, from its exported one on, its own: axes of one size would be one symbol."""
    used = {size for spec in signature.inputs for size in spec.shape if isinstance(size, int)} | {0, 1}
    chosen: Sizes = {}
    for axis in signature.axes:
        sizes = (size for size in (axis.sample, *_sizes_of_interest(axis, axis.sample)) if size not in used)
        chosen[axis.name] = next(sizes, axis.sample)
        used.add(chosen[axis.name])
    return chosen


def _distinct(sizes: Sizes, signature: Signature) -> bool:
    fixed = {size for spec in signature.inputs for size in spec.shape if isinstance(size, int)}
    return min(sizes.values()) >= 2 and len({*sizes.values(), *fixed}) == len(sizes) + len(fixed)


def _sizes_of_interest(axis: Axis, start: int) -> list[int]:
    """Admissible sizes next above the start, then from the least one on, doubling."""
    step, least, last = axis.multiple_of, max(smallest_size(axis), 2), min(greatest_size(axis), _GREATEST)
    near = [start + distance * step for distance in range(1, _NEAR + 1)]
    far, size = [], least
    while size < last:
        far.append(size // step * step)
        size = max(size + step, 2 * size)
    far.append(last // step * step)
    return [size for size in dict.fromkeys((*near, *far)) if least <= size <= last and size != start]


def _ends(sizes: Iterable[Sizes], count: int) -> list[Sizes]:
    chosen = list(sizes)
    return chosen if len(chosen) <= count else [*chosen[: count // 2], *chosen[-(count - count // 2) :]]
