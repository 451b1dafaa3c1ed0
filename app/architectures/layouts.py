"""Finding the layouts of an architecture: it is built without data, with its defaults and with other options.

An option that chooses among kinds of modules gives a layout for each choice. One that is a number is tried at two other
values: what grows in proportion at both (or with the square, as the patches of an image do) is told as a rule.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from app.architectures.registry import Registry
from app.domain.errors import RecastError
from app.domain.layout import Axis, Growth, Kind, Layout, Number, TensorLayout, Term, counts, resized

COUNTER = "num_batches_tracked"
"""BatchNorm's counter of training steps. Nothing in eval mode reads it, and torch itself lets old files omit it."""
SHALLOW = 3
"""Numbered parts with which other options are tried, where an architecture has more of them and all later are alike."""
MOST_CHOICES = 16
"""Of one option; where there are more, none but the default is tried."""
MOST_BUILDS = 500
MOST_SECONDS = 120.0
"""Of processor time for one architecture; what options do that were not tried until then is not known."""

LARGE = 16
"""From here on a number is a size, tried at multiples, since heads may divide it; a smaller one is a count."""
RATIOS = ((1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2))
"""Steps in which numbers are changed together, where there are few; no two are in proportion."""
UNRULED = 0, 0, 1
"""Sizes that no rule gives, for a change of rank."""
POWERS: tuple[Any, ...] = (1, 2)
EXACT = 1e-6

Tensors = Mapping[str, TensorLayout]


def layouts_of(
    registry: Registry, name: str, *, builds: int = MOST_BUILDS, seconds: float = MOST_SECONDS
) -> tuple[Layout, ...]:
    """The layout with the default options first, then those of other choices that change it.

    Raises what Registry.build does where the architecture cannot be built with its defaults.
    """
    schema = registry.describe(name).options_schema.get("properties", {})
    complete = registry.options(name, {})
    trials = _Trials(registry, name, builds, time.process_time() + seconds)
    numbers = {
        option: complete.get(option) for option, spec in schema.items() if _is_number(spec, complete.get(option))
    }
    default = _default_layout(trials, numbers)
    found = [default.layout]
    for option, spec in schema.items():
        for choice in _choices(spec, complete.get(option)):
            tensors = default.base.with_({option: choice})
            if tensors == default.base.tensors:
                found[0] = _alike(found[0], option, choice)
            elif tensors is not None:
                _enter(found, option, choice, *_chosen_layout(trials, {option: choice}, default, numbers))
    return tuple(found)


def _enter(found: list[Layout], option: str, choice: Any, *layouts: Layout) -> None:
    """Another layout, unless another choice of the option gave the same."""
    for layout in layouts:
        for place, known in enumerate(found):
            if known.chosen.keys() == {option} and known.tensors == layout.tensors:
                found[place] = _alike(known, option, choice)
                break
        else:
            found.append(layout)


def _alike(layout: Layout, option: str, choice: Any) -> Layout:
    return replace(layout, same={**layout.same, option: (*layout.same.get(option, ()), choice)})


class _Trials:
    """Builds of one architecture, as many as are allowed."""

    def __init__(self, registry: Registry, name: str, builds: int, until: float) -> None:
        self._registry, self.name, self._left, self._until = registry, name, builds, until
        self._known: dict[str, Tensors | None] = {}

    def tensors(self, options: Mapping[str, Any]) -> Tensors | None:
        """The state dict with these options, its axes all plain; None if that cannot be built, or not any more."""
        key = repr(sorted(options.items()))
        if key not in self._known:
            self._known[key] = self._built(options)
        return self._known[key]

    def build(self, options: Mapping[str, Any]) -> None:
        """Raises why it cannot be built."""
        self._registry.outline(self.name, options)

    def _built(self, options: Mapping[str, Any]) -> Tensors | None:
        if self._left == 0 or time.process_time() > self._until:
            return None
        self._left -= 1
        try:
            state = self._registry.outline(self.name, options).state_dict(keep_vars=True)
        except RecastError:
            return None
        seen: set[int] = set()
        found = {}
        for key, tensor in state.items():
            if isinstance(tensor, Tensor):
                optional = id(tensor) in seen or key.endswith(COUNTER)
                found[key] = TensorLayout(tuple(tensor.shape), _kind(tensor), optional)
                seen.add(id(tensor))
        return found


def _kind(tensor: Tensor) -> Kind:
    if tensor.is_complex():
        return "complex"
    return "float" if tensor.is_floating_point() else "integer"


def _is_number(spec: Mapping[str, Any], default: Any) -> bool:
    """Whether an option is a number; one without a default has one of its own that only a build shows."""
    kinds = {str(kind) for part in (spec, *spec.get("anyOf", ())) for kind in _listed(part.get("type", ()))}
    if isinstance(default, bool) or "enum" in spec:
        return False
    return isinstance(default, int | float) or (default is None and kinds - {"null"} == {"integer"})


def _choices(spec: Mapping[str, Any], default: Any) -> tuple[Any, ...]:
    """The other choices of an option; none where the default is the architecture's own choice (null)."""
    if isinstance(default, bool):
        return (not default,)
    listed = spec.get("enum", ()) if default is not None else ()
    return tuple(choice for choice in listed if choice != default) if len(listed) <= MOST_CHOICES else ()


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else (value,) if isinstance(value, str) else ()


def _default_layout(trials: "_Trials", numbers: Mapping[str, Number | None]) -> "_Default":
    whole = trials.tensors({})
    if whole is None:
        trials.build({})  # raises why
        raise AssertionError(f"{trials.name} can be built, and could not")
    growths = tuple(growth for option, value in numbers.items() for growth in _growths(trials, whole, option, value))
    base = _shallow(trials, {}, whole, growths)
    counted = {growth.option for growth in growths}
    rest = {option: value for option, value in numbers.items() if option not in counted}
    sizes = {size for tensor in whole.values() for size in tensor.plain}
    likely = {option: value for option, value in rest.items() if value in sizes}
    others = {option: value for option, value in rest.items() if option not in likely}
    effects = _effects(base, likely, base.tensors) | _bisected(base, base.tensors, others)
    ruled = _distinct(effects, numbers)
    tensors = _grown({key: _with_terms(key, t, ruled.values()) for key, t in base.tensors.items()}, base, growths)
    defaults = {option: value for option in counted if (value := numbers[option]) is not None}
    layout = Layout(
        architecture=trials.name,
        chosen={},
        defaults={**defaults, **{option: effect.default for option, effect in ruled.items()}},
        tensors={key: tensors[key] for key in whole},
        growths=growths,
        inert=frozenset(option for option, effect in effects.items() if effect is not None and not effect.terms),
    )
    return _Default(layout, base, {o: e.tried for o, e in effects.items() if o in layout.inert and e is not None})


@dataclass(frozen=True)
class _Default:
    """The default layout, what it was found on, and the inert options each with a value that was admitted."""

    layout: Layout
    base: "_Base"
    inert: Mapping[str, Number]


def _chosen_layout(
    trials: "_Trials", chosen: Mapping[str, Any], found: _Default, numbers: Mapping[str, Number | None]
) -> Iterator[Layout]:
    """With another choice: what the default layout has too, perhaps under a prefix, follows the same options."""
    default, whole = found.layout, trials.tensors(chosen)
    if whole is None:
        return
    prefix = _common_prefix(whole, default.tensors)
    have = counts(whole)
    growths = tuple(
        replace(growth, stem=prefix + growth.stem)
        for growth in default.growths
        if have.get(prefix + growth.stem) == growth.count
    )
    shared = {
        key: tensor
        for name, tensor in default.tensors.items()
        if (key := prefix + name) in whole and _same_plain(whole[key], tensor)
    }
    others = whole.keys() - shared.keys()
    base = _shallow(trials, chosen, whole, growths)
    own = {key: tensor for key, tensor in base.tensors.items() if key in others}
    effects = {}
    if own:
        counted = {growth.option for growth in default.growths}
        likely = {option: numbers[option] for option in default.defaults if option not in counted}
        rest = {o: v for o, v in numbers.items() if o not in counted and o not in likely}
        effects = _effects(base, likely, own) | _bisected(base, own, rest, found.inert)
    ruled = _distinct(effects, numbers)
    mine = _grown({key: _with_terms(key, tensor, ruled.values()) for key, tensor in own.items()}, base, growths)
    tensors = {key: shared.get(key) or mine.get(key, tensor) for key, tensor in whole.items()}
    named = {
        term.option
        for tensor in tensors.values()
        for axis in tensor.axes
        if isinstance(axis, Axis)
        for term in axis.terms
    }
    defaults = {**default.defaults, **{option: effect.default for option, effect in ruled.items()}}
    kept = named | {growth.option for growth in growths}
    yield Layout(
        architecture=trials.name,
        chosen=chosen,
        defaults={option: value for option, value in defaults.items() if option in kept},
        tensors=tensors,
        growths=growths,
        inert=default.inert - kept,
    )


def _common_prefix(whole: Tensors, known: Tensors) -> str:
    """What stands before most of the known keys: "bert." in a model with a head."""
    heads = {"", *(key[: key.index(".") + 1] for key in whole if "." in key)}
    return max(sorted(heads), key=lambda head: sum(head + name in whole for name in known))


def _same_plain(tensor: TensorLayout, ruled: TensorLayout) -> bool:
    return tensor.kind == ruled.kind and tensor.axes == ruled.plain


def _effects(base: "_Base", numbers: Mapping[str, Number | None], tensors: Tensors) -> dict[str, "_Effect | None"]:
    """What each number does to these tensors, all tried jointly where that tells."""
    jointly = _jointly(base, tensors, numbers) if len(numbers) <= len(RATIOS) else None
    return jointly or {option: _effect(base, tensors, option, value) for option, value in numbers.items()}


def _bisected(
    base: "_Base",
    tensors: Tensors,
    numbers: Mapping[str, Number | None],
    admitted: Mapping[str, Number] | None = None,
) -> dict[str, "_Effect | None"]:
    """The same of numbers of which nothing is expected: all are changed at once, then halves of those that do not pass.

    ``admitted``: values to try, where some are known to be admitted.
    """
    if not numbers:
        return {}
    together = {option: (admitted or {}).get(option, _steps(value)[0][0]) for option, value in numbers.items()}
    if _of(base.with_(together), tensors) == tensors:
        return {option: _Effect(0, {}, value) for option, value in together.items()}
    options = list(numbers)
    if len(options) == 1:
        return {options[0]: _effect(base, tensors, options[0], numbers[options[0]])}
    halves = (options[: len(options) // 2], options[len(options) // 2 :])
    return {
        option: effect
        for half in halves
        for option, effect in _bisected(base, tensors, {o: numbers[o] for o in half}, admitted).items()
    }


def _jointly(
    base: "_Base", tensors: Tensors, numbers: Mapping[str, Number | None]
) -> dict[str, "_Effect | None"] | None:
    """What each number does, found by two builds in which all of them are changed, each in a ratio of its own.

    None where these builds fail, or where something changes in no option's ratio, or in that of two.
    """
    tried = []
    for (option, default), (one, two) in zip(numbers.items(), RATIOS, strict=False):
        if default is None or default <= 0:
            return None
        unit = default if default >= LARGE or isinstance(default, float) else 1
        tried.append([_Tried(option, power, default, default + one * unit, default + two * unit) for power in POWERS])
    at_one, at_two = (
        _of(base.with_({powers[0].option: getattr(powers[0], name) for powers in tried}), tensors)
        for name in ("one", "two")
    )
    if at_one is None or at_two is None:
        return None
    terms: dict[str, dict[str, dict[int, Term]]] = {powers[0].option: {} for powers in tried}
    for key, axis, sizes in _changes(tensors, at_one, at_two):
        fitting = [found[0] for powers in tried for each in powers if (found := each.term(*sizes)) is not None]
        if len(fitting) != 1:
            return None
        terms[fitting[0].option].setdefault(key, {})[axis] = fitting[0]
    return {p[0].option: _Effect(p[0].default or 0, terms[p[0].option], p[0].one) for p in tried}


def _changes(base: Tensors, at_one: Tensors, at_two: Tensors) -> Iterator[tuple[str, int, tuple[int, int, int]]]:
    """Key, axis and sizes of each axis that is not the same in all three."""
    for key, tensor in base.items():
        ranks = {len(other[key].axes) for other in (base, at_one, at_two)}
        if len(ranks) > 1:
            yield key, 0, UNRULED
            continue
        for axis, sizes in enumerate(zip(tensor.plain, at_one[key].plain, at_two[key].plain, strict=True)):
            if len(set(sizes)) > 1:
                yield key, axis, sizes


def _of(tensors: Tensors | None, names: Iterable[str]) -> Tensors | None:
    """Those of these names; all of them must be there."""
    if tensors is None or any(name not in tensors for name in names):
        return None
    return {name: tensors[name] for name in names}


def _distinct(effects: Mapping[str, "_Effect | None"], numbers: Mapping[str, Number | None]) -> dict[str, "_Effect"]:
    """Those that change something; of two names of one option the one that has a default."""
    ruled = {option: effect for option, effect in effects.items() if effect is not None and effect.terms}
    taken = {effect.signature for option, effect in ruled.items() if numbers[option] is not None}
    return {o: e for o, e in ruled.items() if numbers[o] is not None or e.signature not in taken}


def _grown(tensors: Tensors, base: "_Base", growths: tuple[Growth, ...]) -> Tensors:
    """Of the base, with as many numbered parts as the whole has."""
    whole = {growth.stem: growth.count for growth in growths}
    for growth in base.growths:
        tensors = resized(tensors, growth.stem, growth.count, whole[growth.stem])
    return tensors


def _growths(trials: "_Trials", whole: Tensors, option: str, value: Number | None) -> tuple[Growth, ...]:
    """The numbered parts of which an option has fewer when it is one less; none where it does something else too."""
    have = counts(whole)
    if not isinstance(value, int) or value < 2 or value not in have.values():
        return ()
    fewer = trials.tensors({option: value - 1})
    if fewer is None or fewer.keys() == whole.keys():
        return ()
    left = counts(fewer)
    stems = [stem for stem, count in have.items() if left.get(stem, 0) != count]
    outer = [stem for stem in stems if not any(stem.startswith(f"{other}.") for other in stems if other != stem)]
    found = tuple(Growth(option, stem, have[stem], have[stem] - left.get(stem, 0)) for stem in outer)
    tensors: Tensors = fewer
    for growth in found:
        tensors = resized(tensors, growth.stem, growth.count - int(growth.per), growth.count)
    return found if tensors == whole else ()


@dataclass(frozen=True)
class _Base:
    """What options are tried on: the architecture with few numbered parts, which is built faster."""

    trials: "_Trials"
    options: Mapping[str, Any]
    tensors: Tensors
    growths: tuple[Growth, ...] = ()

    def with_(self, values: Mapping[str, Any]) -> Tensors | None:
        return self.trials.tensors({**self.options, **values})


def _shallow(trials: "_Trials", chosen: Mapping[str, Any], whole: Tensors, growths: tuple[Growth, ...]) -> _Base:
    many = {growth.option: SHALLOW for growth in growths if growth.count > SHALLOW + 1 and growth.per == 1}
    few = tuple(replace(growth, count=SHALLOW) for growth in growths if growth.option in many)
    options = {**chosen, **many}
    tensors = trials.tensors(options) if many else None
    if tensors is not None:
        base = _Base(trials, options, tensors, few)
        if _grown(tensors, base, growths) == whole:
            return base
    return _Base(trials, chosen, whole)


@dataclass(frozen=True)
class _Effect:
    """What an option does: a term for some axes of some tensors, or nothing. ``default``: its value in the base."""

    default: Number
    terms: Mapping[str, Mapping[int, Term]]
    tried: Number = 0
    """A value that was admitted."""

    @property
    def signature(self) -> frozenset[tuple[str, int, Number, int]]:
        """What it does, whatever the option is called."""
        return frozenset((key, a, t.slope, t.power) for key, axes in self.terms.items() for a, t in axes.items())


def _effect(base: _Base, tensors: Tensors, option: str, default: Number | None) -> _Effect | None:
    """None where it cannot be told as a rule."""
    for one, two in _steps(default):
        at_one, at_two = (_of(base.with_({option: value}), tensors) for value in (one, two))
        if at_one is None or at_two is None:
            continue
        if at_one == tensors == at_two:
            return _Effect(0, {}, one)
        for power in POWERS:
            found = _rule(_Tried(option, power, default, one, two), tensors, at_one, at_two)
            if found is not None:
                return found
    return None


@dataclass(frozen=True)
class _Tried:
    """An option, the two values that it was tried at, and the power of it that sizes may follow."""

    option: str
    power: Any
    default: Number | None
    one: Number
    two: Number

    def term(self, size: int, at_one: int, at_two: int) -> tuple[Term, Number] | None:
        """What gives these sizes, and the default that does; None if nothing does."""
        step: float = self.two**self.power - self.one**self.power
        slope = (at_two - at_one) / step
        if slope == 0:
            return None
        default = self.default if self.default is not None else self.one - (at_one - size) / slope
        if abs(size + slope * (self.one**self.power - default**self.power) - at_one) > EXACT:
            return None
        return Term(self.option, _number(slope), self.power), _number(default)


def _rule(tried: _Tried, base: Tensors, at_one: Tensors, at_two: Tensors) -> _Effect | None:
    """The terms that give what was seen, of all axes of all tensors alike; None if there are none."""
    if not base.keys() == at_one.keys() == at_two.keys():
        return None
    terms: dict[str, dict[int, Term]] = {}
    defaults = set()
    for key, axis, sizes in _changes(base, at_one, at_two):
        found = tried.term(*sizes)
        if found is None:
            return None
        terms.setdefault(key, {})[axis] = found[0]
        defaults.add(found[1])
    return _Effect(defaults.pop(), terms) if len(defaults) == 1 else None


def _steps(default: Number | None) -> tuple[tuple[Number, Number], ...]:
    """Pairs of values to try beside the default; which of them an architecture admits shows when it is built."""
    if default is None:
        return ((5, 7),)
    if isinstance(default, float):
        return ((2 * default, 3 * default), (default / 2, default / 4)) if default else ((0.25, 0.5),)
    if default <= 0:
        return ((1, 2),)
    near, far, less = (default + 1, default + 2), (2 * default, 3 * default), (default // 2, default // 4)
    found = (far, less) if default >= LARGE else (near, far, less)
    return tuple(pair for pair in found if pair[1] > 0)


def _number(value: float) -> Number:
    return int(value) if float(value).is_integer() else value


def _with_terms(key: str, tensor: TensorLayout, effects: Iterable[_Effect]) -> TensorLayout:
    terms: dict[int, list[Term]] = {}
    for effect in effects:
        for axis, term in effect.terms.get(key, {}).items():
            terms.setdefault(axis, []).append(term)
    if not terms:
        return tensor
    axes = (
        Axis(size, tuple(terms[index])) if index in terms and isinstance(size, int) else size
        for index, size in enumerate(tensor.axes)
    )
    return replace(tensor, axes=tuple(axes))
