"""The layout of an architecture: the keys and shapes of its state dict, and how its options change them.

It is found by building the architecture with several options (architectures/layouts.py). Afterwards it tells without a
build, and without torch, what the state dict would be with others. What was not tried is not told: options whose effect
is not known are ``unclear``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Number = int | float
Kind = Literal["float", "integer", "complex"]
"""Dtypes of one kind may be cast into each other without changing what a tensor means."""


@dataclass(frozen=True)
class Term:
    """What an option adds to a size: ``slope`` for each 1 by which its ``power`` differs from that of its default."""

    option: str
    slope: Number
    power: Literal[1, 2] = 1


@dataclass(frozen=True)
class Axis:
    """A size that follows options; ``size`` with all of them at their defaults."""

    size: int
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class TensorLayout:
    """Shape and kind of one tensor; an axis that no option changes is a plain size.

    ``optional``: a file may lack it (a twin of a tied tensor, BatchNorm's counter).
    """

    axes: tuple[int | Axis, ...]
    kind: Kind = "float"
    optional: bool = False

    @cached_property
    def varies(self) -> bool:
        """Whether options change it."""
        return any(isinstance(axis, Axis) for axis in self.axes)

    @property
    def plain(self) -> tuple[int, ...]:
        """The shape with the options' defaults."""
        return tuple(axis.size if isinstance(axis, Axis) else axis for axis in self.axes)


@dataclass(frozen=True)
class Growth:
    """Numbered parts, such as "encoder.layer.11": as many as an option says.

    ``count``: with the option's default; there are ``per`` more for each 1 of it, each a copy of the last.
    """

    option: str
    stem: str
    count: int
    per: Number


@dataclass(frozen=True)
class Layout:
    """Keys and shapes of an architecture with some options chosen and all others at their defaults."""

    architecture: str
    chosen: Mapping[str, Any]
    """Options that differ from their defaults: a choice among kinds of modules, such as a task."""
    defaults: Mapping[str, Number]
    """Of the options that change sizes or counts."""
    tensors: Mapping[str, TensorLayout]
    growths: tuple[Growth, ...] = ()
    inert: frozenset[str] = frozenset()
    """Options that change neither keys nor shapes."""
    same: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Other choices of options that give this very layout."""

    def shapes(self, values: Mapping[str, Number]) -> dict[str, tuple[float, ...]]:
        """Keys and shapes where options have these values; a size that is no whole number cannot be built."""
        resized = self.grown(values)
        known: dict[int, tuple[float, ...]] = {}
        found = {}
        for key, tensor in resized.items():
            shape = known.get(id(tensor))
            if shape is None:
                shape = known[id(tensor)] = tuple(self._size(axis, values) for axis in tensor.axes)
            found[key] = shape
        return found

    def grown(self, values: Mapping[str, Number]) -> Mapping[str, TensorLayout]:
        """The tensors where there are as many numbered parts as the options say."""
        tensors = self.tensors
        for growth in self.growths:
            step = values.get(growth.option, self.defaults[growth.option]) - self.defaults[growth.option]
            if step:
                tensors = resized(tensors, growth.stem, growth.count, growth.count + int(growth.per * step))
        return tensors

    def _size(self, axis: int | Axis, values: Mapping[str, Number]) -> float:
        if isinstance(axis, int):
            return axis
        size = float(axis.size)
        for term in axis.terms:
            default = self.defaults[term.option]
            size += term.slope * (values.get(term.option, default) ** term.power - default**term.power)
        return int(size) if size.is_integer() else size


def counts(keys: Iterable[str]) -> dict[str, int]:
    """How many numbered parts there are under each name: {"encoder.layer": 12}."""
    found: dict[str, int] = {}
    for key in keys:
        parts = key.split(".")
        for place, part in enumerate(parts):
            if part.isdigit() and len(part) < 6:
                stem = ".".join(parts[:place])
                found[stem] = max(found.get(stem, 0), int(part) + 1)
    return found


def resized(tensors: Mapping[str, TensorLayout], stem: str, count: int, other: int) -> dict[str, TensorLayout]:
    """The tensors with ``other`` numbered parts under a name in place of ``count``; new ones are copies of the last."""
    start = f"{stem}." if stem else ""
    found: dict[str, TensorLayout] = {}
    for key, tensor in tensors.items():
        index, dot, rest = key[len(start) :].partition(".") if key.startswith(start) else ("", "", "")
        if not index.isdigit():
            found[key] = tensor
            continue
        if int(index) < other:
            found[key] = tensor
        if int(index) == count - 1:
            for further in range(count, other):
                found[f"{start}{further}{dot}{rest}"] = tensor
    return found
