"""Which registered architectures a file's keys and shapes are of, and with which options; told from layouts alone.

Nothing is built and torch is not imported, so that the api can answer as well as a conversion's process.
"""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.conversion.key_repair import LEADING, Reading, Shapes, first_segments, readings
from app.domain.layout import Axis, Layout, Number, TensorLayout, counts
from app.domain.layout_file import LayoutFile

MOST_READINGS = 4
"""Ways to read a file's keys that architectures are held against: those under which most keys are known."""
MOST_PREFIXES = 8
"""First segments of a file that are tried as a prefix beside those that wrappers add."""
LOOKED_AT = 24
"""Architectures whose options are found out: those with most keys and shapes, and those with most kinds of keys."""
NUMBER = re.compile(r"(?:(?<=\.)|^)\d+(?=\.|$)")
EXACT = 1e-6


@dataclass(frozen=True)
class Match:
    """How a file's tensors meet an architecture with these options."""

    architecture: str
    options: Mapping[str, Any]
    """Those that differ from their defaults."""
    reading: Reading
    fitting: int
    """Tensors of the file that have a place of their shape."""
    tensors: int
    """Of the file."""
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    """In words."""
    alike: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Other choices of these options of which keys and shapes are the same."""
    order: int = 0
    """Where the architecture stands in the registry."""

    @property
    def exact(self) -> bool:
        """Whether every tensor of the file has a place, and every place that needs a tensor has one."""
        return self.fitting == self.tensors and not self.missing

    @property
    def share(self) -> float:
        """Of the file's tensors and the architecture's places together, those that found each other, in [0, 1]."""
        return 2 * self.fitting / (self.tensors + self.fitting + len(self.missing) + len(self.mismatched))

    @property
    def prefix(self) -> str | None:
        """What to ask for as the option ``prefix``; None where the loading finds out by itself what wrappers added."""
        wrappers = all(part in LEADING for part in self.reading.prefix.split(".") if part)
        return None if wrappers else self.reading.prefix

    def sentence(self) -> str:
        """What to ask for, such as "torchvision/resnet50 with num_classes=37: every tensor fits"."""
        said = "every tensor fits" if self.exact else f"{self.fitting} of {self.tensors} tensors fit"
        told = [
            f"{option}={' or '.join(_word(choice) for choice in (value, *self.alike.get(option, ())))}"
            for option, value in self.options.items()
        ]
        if self.prefix:
            told.append(f"prefix={self.prefix}")
        return f"{self.architecture}{' with ' if told else ''}{' and '.join(told)}: {said}"

    def advice(self) -> str:
        """The sentence, and how to ask for it."""
        told = [f"architecture_options={json.dumps(dict(self.options), separators=(',', ':'))}"] if self.options else []
        told += [f"prefix={self.prefix!r}"] if self.prefix else []
        return f"{self.sentence()}.{' Ask for ' if told else ''}{' and '.join(told)}{'.' if told else ''}"


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def best_of(ranked: Iterable[Iterable[Match]], told: str = "") -> list[Match]:
    """Several rankings as one; of equals, the one that is told (LayoutIndex.rank), then those of the earlier."""
    words = told.lower()
    return sorted(
        (match for one in ranked for match in one),
        key=lambda match: (*_quality(match), *_namesake(match, words)),
        reverse=True,
    )


@dataclass
class _Posting:
    """The layouts that have one key, and the number of the tensor's plain shape in each."""

    layouts: "array[int]" = field(default_factory=lambda: array("I"))
    shapes: "array[int]" = field(default_factory=lambda: array("I"))


def _below(keys: Iterable[str], prefix: str) -> list[str]:
    return [key[len(prefix) :] for key in keys if key.startswith(prefix)]


class LayoutIndex:
    """Layouts of all registered architectures, found by keys and shapes."""

    def __init__(self, files: Iterable[LayoutFile], order: Mapping[str, int] | None = None) -> None:
        """``order``: the architectures that are registered, each with its place in the registry; None: all of them."""
        self._order = order
        self._where: list[tuple[LayoutFile, int]] = []
        self._by_name: dict[str, list[int]] = {}
        self._postings: dict[str, _Posting] = {}
        self._kinds: dict[str, array[int]] = {}
        self._shapes: dict[tuple[int, ...], int] = {}
        self._sizes = array("I")
        self._kind_counts = array("I")
        for file in files:
            self._enter(file)

    def _enter(self, file: LayoutFile) -> None:
        plain = [self._shapes.setdefault(tensor.plain, len(self._shapes)) for tensor in file.tensors]
        postings = [self._postings.setdefault(key, _Posting()) for key in file.keys]
        kinds = [kind_of(key) for key in file.keys]
        for number, places in enumerate(file.places):
            architecture = file.heads[number].architecture
            if self._order is not None and architecture not in self._order:
                continue
            layout = len(self._where)
            self._where.append((file, number))
            self._by_name.setdefault(architecture, []).append(layout)
            for key, tensor in zip(places[::2], places[1::2], strict=True):
                postings[key].layouts.append(layout)
                postings[key].shapes.append(plain[tensor])
            mine = {kinds[key] for key in places[::2]}
            for kind in mine:
                self._kinds.setdefault(kind, array("I")).append(layout)
            self._sizes.append(len(places) // 2)
            self._kind_counts.append(len(mine))

    def layouts(self, architecture: str) -> list[Layout]:
        """Of one architecture, that with its default options first; empty for one that is not known."""
        return [self._layout(number) for number in self._by_name.get(architecture, ())]

    def __contains__(self, architecture: object) -> bool:
        return architecture in self._by_name

    def rank(self, shapes: Shapes, *, most: int = 5, told: str = "") -> list[Match]:
        """The architectures that a file's tensors fit best, the best first, each once with the options that fit best.

        ``told``: what else is known of the file, such as its name: of equals, the one named there comes first, then
        one of the library that it begins with.
        """
        found: dict[str, Match] = {}
        for reading in self._readings(shapes):
            named = {name: shapes[key] for key, name in reading.names(shapes).items()}
            sizes = counts(named)
            for number in self._likely(named):
                layout = self._layout(number)
                order = number if self._order is None else self._order[layout.architecture]
                match = match_of(layout, named, sizes, reading, total=len(shapes), order=order)
                best = found.get(match.architecture)
                if match.fitting and (best is None or _quality(match) > _quality(best)):
                    found[match.architecture] = match
        return best_of([sorted(found.values(), key=lambda match: match.order)], told)[:most]

    def _layout(self, number: int) -> Layout:
        file, place = self._where[number]
        return file.layout(place)

    def _readings(self, shapes: Shapes) -> list[Reading]:
        """Ways to read the keys, those under which most are known; the plain one first among equals."""
        plainly = readings(shapes, None)
        stems = [reading.prefix for reading in plainly if not reading.removed]
        others = [
            Reading(stem + first)
            for stem in stems
            for first in list(first_segments(_below(shapes, stem)))[:MOST_PREFIXES]
        ]
        found = dict.fromkeys([*plainly, *others])
        known = {reading: sum(name in self._postings for name in reading.names(shapes).values()) for reading in found}
        return sorted((reading for reading in found if known[reading]), key=lambda r: -known[r])[:MOST_READINGS]

    def _likely(self, named: Shapes) -> list[int]:
        """Layouts worth a closer look."""
        exact: Counter[int] = Counter()
        for name, shape in named.items():
            posting = self._postings.get(name)
            wanted = self._shapes.get(tuple(shape))
            if posting is not None and wanted is not None:
                exact.update(
                    [layout for layout, at in zip(posting.layouts, posting.shapes, strict=True) if at == wanted]
                )
        alike: Counter[int] = Counter()
        kinds = {kind_of(name) for name in named}
        for kind in kinds:
            alike.update(self._kinds.get(kind, ()))
        size = len(named)
        by_shape = sorted(exact, key=lambda n: -exact[n] / (size + self._sizes[n]))[:LOOKED_AT]
        by_kind = sorted(alike, key=lambda n: -alike[n] / (len(kinds) + self._kind_counts[n]))[:LOOKED_AT]
        return list(dict.fromkeys([*by_shape, *by_kind]))

    def check(self, architecture: str, changed: Mapping[str, Any], shapes: Shapes) -> Match | None:
        """How a file's tensors meet an architecture with just these options, by the reading that suits it best.

        ``changed``: the options that differ from their defaults. None where the layouts do not tell what these do.
        """
        found = _with_options(self.layouts(architecture), changed)
        if found is None:
            return None
        layout, values = found
        matches = []
        for reading in readings(shapes, None):
            named = {name: shapes[key] for key, name in reading.names(shapes).items()}
            if named:
                match = compared(layout, values, named, total=len(shapes))
                matches.append(replace(match, options=changed, reading=reading))
        return max(matches, key=_quality, default=None)


def _with_options(layouts: list[Layout], changed: Mapping[str, Any]) -> tuple[Layout, dict[str, Number]] | None:
    """The layout that these options choose, and the values of its other options.

    None where that is not known: an option was not tried, or two were not tried together that change one size.
    """
    chosen = [
        layout
        for layout in layouts
        if layout.chosen
        and all(changed.get(o, _UNTOLD) in (value, *layout.same.get(o, ())) for o, value in layout.chosen.items())
    ]
    if not layouts or len(chosen) > 1:
        return None
    layout = chosen[0] if chosen else layouts[0]
    rest = {option: value for option, value in changed.items() if option not in layout.chosen}
    values = {option: value for option, value in rest.items() if option in layout.defaults}
    known = values.keys() | layout.inert | {o for o, value in rest.items() if value in layout.same.get(o, ())}
    if not rest.keys() <= known or any(not _is_number(value) for value in values.values()):
        return None
    axes = {axis for tensor in layout.tensors.values() for axis in tensor.axes if isinstance(axis, Axis)}
    if any(sum(term.option in values for term in axis.terms) > 1 for axis in axes):
        return None
    return layout, values


_UNTOLD = object()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind_of(key: str) -> str:
    """The key without its numbers: what numbered parts of a model have in common."""
    return NUMBER.sub("#", key)


def _quality(match: Match) -> tuple[bool, float, int]:
    """Most tensors and places that met; of equals, the one with the fewest options."""
    return match.exact, match.share, -len(match.options) - bool(match.reading.prefix)


def _namesake(match: Match, words: str) -> tuple[int, bool]:
    library, _, bare = match.architecture.lower().rpartition("/")
    return (len(bare) if bare in words else 0), words.startswith(f"{library}/")


def match_of(
    layout: Layout, named: Shapes, sizes: Mapping[str, int], reading: Reading, *, total: int, order: int = 0
) -> Match:
    """The best that other values of the layout's options make of it: sizes and counts read off the file's tensors."""
    values = _counted(layout, sizes)
    values |= _sized(layout, layout.grown(values), named)
    match = compared(layout, values, named, total=total)
    changed = {option: value for option, value in values.items() if value != layout.defaults[option]}
    alike = {option: choices for option, choices in layout.same.items() if option in layout.chosen}
    return replace(match, options={**layout.chosen, **changed}, reading=reading, order=order, alike=alike)


def compared(layout: Layout, values: Mapping[str, Number], named: Shapes, *, total: int) -> Match:
    """The file's tensors against the layout with these values of its options."""
    places = layout.shapes(values)
    fitting, mismatched = 0, []
    for name, shape in named.items():
        place = places.get(name)
        if place == shape or (place == () and shape == (1,)):
            fitting += 1
        elif place is not None:
            mismatched.append(f"{name}: checkpoint {tuple(shape)}, architecture {place}")
    grown = layout.grown(values)
    return Match(
        architecture=layout.architecture,
        options={},
        reading=Reading(),
        fitting=fitting,
        tensors=total,
        missing=tuple(key for key in places if key not in named and not grown[key].optional),
        unexpected=tuple(name for name in named if name not in places),
        mismatched=tuple(mismatched),
    )


def _counted(layout: Layout, sizes: Mapping[str, int]) -> dict[str, Number]:
    """Values of the options that say how many numbered parts there are."""
    votes: dict[str, Counter[Number]] = {}
    for growth in layout.growths:
        count = sizes.get(growth.stem, 0)
        value = layout.defaults[growth.option] + (count - growth.count) / growth.per
        if count and value == int(value):
            votes.setdefault(growth.option, Counter())[int(value)] += 1
    return {option: counter.most_common(1)[0][0] for option, counter in votes.items()}


def _sized(layout: Layout, tensors: Mapping[str, TensorLayout], named: Shapes) -> dict[str, Number]:
    """Values of the options that say how large tensors are: each is read off the axes that it alone changes, then off
    those that it changes beside others that are known by then."""
    open_axes: list[tuple[Axis, int]] = []
    for name, shape in named.items():
        tensor = tensors.get(name)
        if tensor is not None and tensor.varies and len(shape) == len(tensor.axes):
            open_axes += [(a, size) for a, size in zip(tensor.axes, shape, strict=True) if isinstance(a, Axis)]
    tallied = Counter(open_axes)
    known: dict[str, Number] = {}
    while True:
        votes: dict[str, Counter[Number]] = {}
        for (axis, size), count in tallied.items():
            unknown = [term for term in axis.terms if term.option not in known]
            if len(unknown) == 1:
                value = _solved(layout, axis, size, known)
                if value is not None:
                    votes.setdefault(unknown[0].option, Counter())[value] += count
        if not votes:
            return known
        known |= {option: counter.most_common(1)[0][0] for option, counter in votes.items()}


def _solved(layout: Layout, axis: Axis, size: int, known: Mapping[str, Number]) -> Number | None:
    """The value of the one option not known yet that gives the axis this size; None where no number does."""
    rest: float = size - axis.size
    (term,) = (term for term in axis.terms if term.option not in known)
    for other in axis.terms:
        if other is not term:
            default = layout.defaults[other.option]
            rest -= other.slope * (known[other.option] ** other.power - default**other.power)
    default = layout.defaults[term.option]
    power = default**term.power + rest / term.slope
    if power < 0:
        return None
    value: float = power ** (1 / term.power)
    if isinstance(default, float):
        return value
    return round(value) if abs(value - round(value)) < EXACT else None
