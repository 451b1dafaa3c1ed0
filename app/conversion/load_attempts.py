"""Trying the ways to read a checkpoint's keys until one fills an architecture.

A way is a reading of the keys (key_repair), alone or followed by the conversion that the architecture's library has for
files in its published layouts. Each is tried by loading: the module's own load hooks run, and what they made of the
keys is found out afterwards (origins).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from app.architectures.named_tensors import named_tensors, tied_groups
from app.architectures.registry import Registry
from app.conversion.checkpoint import OpenedCheckpoint
from app.conversion.key_repair import Reading, fits, prefixes_of, readings
from app.conversion.origins import Accounted, Origins, account
from app.conversion.ties import fill_twins
from app.domain.errors import KeyMismatch, RecastError

COUNTER = "num_batches_tracked"
"""BatchNorm's counter of training steps. Nothing in eval mode reads it, and torch itself lets old files omit it."""
MOST_PREFIXES = 20
"""Other first segments of a file that are held against the architecture."""


@dataclass(frozen=True)
class Place:
    """An architecture that a checkpoint is to be put into, and what its state dict looks like."""

    registry: Registry
    name: str
    options: Mapping[str, Any]
    module: nn.Module
    groups: list[tuple[str, ...]]
    """Names of tied tensors."""
    targets: Mapping[str, Tensor]
    """The state dict that the module was built with: the module's own objects, on meta."""
    optional: frozenset[str]
    """Keys that a checkpoint may omit without leaving anything to chance."""

    @property
    def shapes(self) -> dict[str, torch.Size]:
        return {key: value.shape for key, value in self.targets.items()}


@dataclass(frozen=True)
class Attempt:
    """One way to read the file, tried: how its tensors and the module met."""

    reading: Reading
    converts: bool
    """Whether the architecture's library converted the keys."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """By the names that the reading gives."""
    converted: Mapping[str, Tensor] = field(default_factory=dict)
    """The same after the library's conversion."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Uploaded key to the name that the reading gives, for keys inside of the prefix."""
    accounted: Accounted = field(default_factory=lambda: Accounted({}, (), (), ()))
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: Mapping[str, str] = field(default_factory=dict)
    """Key to words, for tensors whose shape or kind of dtype differs."""
    raised: str | None = None
    """What the module's or the library's own loading raised."""

    def complete(self, allowed: Callable[[str], bool]) -> bool:
        """Whether every place was filled, and every tensor went somewhere by the architecture's own rules."""
        lacking = [key for key in self.missing if not allowed(key)]
        return not (lacking or self.unexpected or self.mismatched or self.accounted.changed or self.raised)

    @property
    def usable(self) -> int:
        """Elements of the upload that the module holds, counters aside."""
        placed = self.accounted.tensors
        return sum(
            tensor.numel() for key, tensor in placed.items() if tensor.is_floating_point() or tensor.is_complex()
        )


def place_of(registry: Registry, name: str, options: Mapping[str, Any]) -> Place:
    module = registry.build(name, options)
    groups = tied_groups(named_tensors(module))
    targets = {key: value for key, value in module.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    counters = {key for key in targets if key.endswith(COUNTER)}
    optional = frozenset(counters | {twin for group in groups for twin in group[1:]})
    return Place(registry, name, options, module, groups, targets, optional)


def read_into(place: Place, opened: OpenedCheckpoint, prefix: str | None, allowed: Callable[[str], bool]) -> Attempt:
    """Load by the first way to read the file that fills the module completely, else by the one that fills most of it.

    Raises KeyMismatch where the prefix was to be found out and several fit.
    """
    untouched = _members(place.module)
    best: tuple[Attempt, _Members] | None = None
    for reading, converts in _ways(place, opened.state_dict, prefix):
        attempt = _try(place, opened, reading, converts=converts)
        if attempt.complete(allowed):
            if prefix is None and reading.prefix:
                _require_only(place, opened, attempt)
            return attempt
        if best is None or attempt.usable > best[0].usable:
            best = attempt, _members(place.module)
        _restore(untouched)
    assert best is not None  # the plain reading is always tried
    _restore(best[1])
    return best[0]


def _ways(place: Place, tensors: Mapping[str, Tensor], prefix: str | None) -> Iterator[tuple[Reading, bool]]:
    """Readings of the keys, first without and then with the library's conversion; one that plainly fits alone."""
    found = readings(tensors, prefix)
    shapes = place.shapes
    for reading in found:
        named = reading.names(tensors, shapes)
        if named and fits({name: tensors[key].shape for key, name in named.items()}, shapes, place.optional):
            yield reading, False
            return
    for converts in (False, True) if place.registry.converts(place.name) else (False,):
        yield from ((reading, converts) for reading in found)


def _require_only(place: Place, opened: OpenedCheckpoint, attempt: Attempt) -> None:
    """Raise KeyMismatch where another prefix leads to as many tensors of the same names and shapes, and of other
    values: which were meant cannot be known."""
    reading, held = attempt.reading, opened.state_dict
    mine = {name: held[key] for key, name in attempt.named.items() if key.startswith(reading.prefix)}
    wanted = {name: tensor for name, tensor in mine.items() if not name.endswith(COUNTER)}
    outside = [key for key in held if not key.startswith(reading.prefix)]
    others = {name: held[key] for key, name in Reading("", reading.removed).names(outside).items()}
    for other in prefixes_of(others, wanted)[:MOST_PREFIXES]:
        pairs = [(tensor, others.get(other + name)) for name, tensor in wanted.items()]
        alike = all(there is not None and there.shape == here.shape for here, there in pairs)
        if alike and not all(torch.equal(here, there) for here, there in pairs if there is not None):
            raise KeyMismatch(
                f"The file holds two models that fit {place.name}: under {reading.prefix!r} and under {other!r}.",
                hint=f"Say which one with the option prefix, such as prefix={reading.prefix!r}.",
                prefixes=[reading.prefix, other],
            )


def _try(place: Place, opened: OpenedCheckpoint, reading: Reading, *, converts: bool) -> Attempt:
    """Load by this reading. What the module's own hooks or its library raise is the attempt's, never the caller's."""
    named = reading.names(opened.state_dict, place.targets)
    tensors = {name: opened.state_dict[key] for key, name in named.items()}
    attempt = partial(Attempt, reading, converts, tensors=tensors, named=named)
    origins = Origins(tensors)
    try:
        with origins:
            converted = dict(tensors)
            if converts:
                converted = place.registry.convert(place.name, place.module, place.options, converted)
            mismatched = _mismatches(converted, place.targets)
            usable = {key: value for key, value in converted.items() if key not in mismatched}
            missing, unexpected = _assign(place, fill_twins(usable, place.groups), _versions(opened.versions, reading))
    except RecastError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a module's load hooks raise
        return attempt(raised=f"{type(error).__name__}: {str(error)[:2000]}")
    held = {key: value for key, value in place.module.state_dict().items() if isinstance(value, Tensor)}
    accounted = account(tensors, held, origins)
    mismatched |= {key: _words(key, held[key], place.targets[key]) for key in _kinds_apart(held, place.targets)}
    strangers = [key for key in unexpected if key in converted]
    refused = origins.of(converted[key] for key in strangers).union(strangers)
    return attempt(
        converted=converted,
        accounted=accounted,
        missing=tuple(key for key in missing if key not in mismatched),
        unexpected=tuple(key for key in accounted.unplaced if key in refused and not key.endswith(COUNTER)),
        mismatched=mismatched,
    )


def _mismatches(uploaded: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, str]:
    words = {}
    for key, tensor in uploaded.items():
        target = targets.get(key)
        if target is None:
            continue
        if tensor.shape != target.shape and not (target.ndim == 0 and tensor.shape == (1,)):
            words[key] = f"{key}: checkpoint {tuple(tensor.shape)}, architecture {tuple(target.shape)}"
        elif _kind(tensor.dtype) != _kind(target.dtype):
            words[key] = _words(key, tensor, target)
    return words


def _words(key: str, tensor: Tensor, target: Tensor) -> str:
    return f"{key}: checkpoint {tensor.dtype}, architecture {target.dtype}"


def _kinds_apart(held: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> list[str]:
    return [key for key, value in held.items() if key in targets and _kind(value.dtype) != _kind(targets[key].dtype)]


def _kind(dtype: torch.dtype) -> str:
    """Dtypes of one kind may be cast into each other without changing what the tensor means."""
    if dtype.is_complex:
        return "complex"
    return "float" if dtype.is_floating_point else "integer"


def _versions(versions: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """Module versions under the names after key repair: torch's modules read old layouts by them."""
    return {
        (reading.name(path) or "") if path + "." != reading.prefix else "": version
        for path, version in versions.items()
        if isinstance(path, str) and isinstance(version, dict) and (path + ".").startswith(reading.prefix)
    }


def _assign(
    place: Place, tensors: Mapping[str, Tensor], versions: dict[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """load_state_dict, so that the module's own hooks run. Returns the keys it found missing and unexpected.

    A file without versions, such as safetensors, may be of any: where a module refuses the oldest (mnasnet), it is read
    as one of today.
    """
    counters = {
        key: torch.zeros(value.shape, dtype=value.dtype)
        for key, value in place.targets.items()
        if key.endswith(COUNTER) and key not in tensors
    }
    today = getattr(place.module.state_dict(), "_metadata", {})
    for metadata in (versions,) if versions else ({}, today):
        state_dict: OrderedDict[str, Tensor] = OrderedDict({**tensors, **counters})
        if metadata:
            state_dict._metadata = metadata  # type: ignore[attr-defined]
        try:
            result = place.module.load_state_dict(state_dict, strict=False, assign=True)
            return tuple(result.missing_keys), tuple(key for key in result.unexpected_keys if key in tensors)
        except Exception:
            if metadata:
                raise
    raise AssertionError("a module's own versions are never empty")


_Members = list[tuple[dict[str, Any], dict[str, Any]]]


def _members(module: nn.Module) -> _Members:
    """Parameters and buffers of every part: where they are kept, and what is kept there now."""
    kept: list[dict[str, Any]] = [part for m in module.modules() for part in (m._parameters, m._buffers)]
    return [(part, dict(part)) for part in kept]


def _restore(state: _Members) -> None:
    for members, before in state:
        members.clear()
        members.update(before)
