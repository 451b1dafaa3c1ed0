"""What a client could ask for instead, found by holding a checkpoint's keys and shapes against architectures.

Nothing here reads a value or allocates a weight: modules are built without data. The sentences are hints of
``key_mismatch``; whoever knows only a file's keys and shapes may ask as well.
"""

import re
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from app.architectures.known import known_layouts
from app.architectures.registry import Registry
from app.conversion.heads import head_proposal
from app.conversion.key_repair import Reading, first_segments, prefixes_of
from app.conversion.matching import LayoutIndex, Match
from app.domain.errors import RecastError
from app.domain.layout import counts

Shapes = Mapping[str, torch.Size]

MOST_PREFIXES = 20
"""First segments of a file that are tried as a prefix, and as many that lead to one of the architecture's names."""
MOST_BUILDS = 24
"""Times that an architecture is built with other options to find those that fit."""
MOST_SECONDS = 5.0
"""Of processor time, after which no further options are tried: a hint is not worth more."""
_LORA = re.compile(
    r"\.(lora_[ABE]|lora_embedding_[AB]|lora_magnitude_vector|base_layer|hada_w1_a|lora_down|lora_up)\.?"
)


@dataclass(frozen=True)
class Fit:
    """How well a file's tensors fit an architecture with these options: how many have a place of their shape."""

    options: Mapping[str, Any]
    shapes: Shapes
    fitting: int
    exact: bool


def advice(registry: Registry, name: str, plain: Fit, uploaded: Shapes, optional: Container[str]) -> str:
    """What to do about a file that does not fit the architecture, in one or two sentences.

    ``plain`` is how the file's tensors fit by its own keys, of which ``uploaded`` are the shapes; ``optional`` are the
    architecture's keys that a file may omit.
    """
    if any(_LORA.search(key) for key in uploaded):
        return (
            "This file holds LoRA adapters beside or instead of the model's weights. Merge them into the base model "
            "(peft: model.merge_and_unload()), save its state dict and convert that."
        )
    best, prefix = _best_prefix(plain, uploaded, optional)
    named = _below(uploaded, prefix, best.shapes)
    better = propose_options(registry, name, best, named, optional)
    changed = {key: value for key, value in better.options.items() if plain.options.get(key) != value}
    missing = tuple(key for key in better.shapes if key not in named and key not in optional)
    match = Match(name, changed, Reading(prefix), better.fitting, len(named), missing)
    if (changed or prefix) and better.exact:
        return match.advice()
    others = installed_index().rank(uploaded, told=name)
    if others and others[0].exact:
        return others[0].advice()
    head = head_proposal(others, uploaded)
    if head is not None or changed or prefix:
        return match.advice() if head is None else head.advice()
    if best.fitting == 0:
        return (
            f"No tensor of the file has a name and shape of {name}: choose the architecture that it was trained with."
        )
    return (
        f"{best.fitting} of {len(uploaded)} tensors fit. Check the architecture's name and options. Where a part is "
        "meant to be missing, name its keys in allow_missing; strict=false leaves out what does not fit and lists it."
    )


@cache
def installed_index() -> LayoutIndex:
    """Of the libraries' architectures, in the versions that are installed: a second once."""
    return LayoutIndex(file for file in known_layouts() if file.version == version(file.source))


def propose_options(registry: Registry, name: str, plain: Fit, tensors: Shapes, optional: Container[str]) -> Fit:
    """The best fit that other values of the architecture's options give: sizes and counts read off the file's tensors.

    Options are changed one after the other, each to the value that fits most tensors, until all fit or none helps. Of a
    file that shares no key with the architecture none is expected to.
    """
    if tensors.keys().isdisjoint(plain.shapes):
        return plain
    best, builds, until = plain, 0, time.process_time() + MOST_SECONDS
    while not best.exact:
        step = best
        for options in _changes(registry, name, best, tensors):
            if builds == MOST_BUILDS or time.process_time() > until:
                return step
            builds += 1
            tried = fit_of(registry, name, options, tensors, optional)
            if tried is not None and _quality(tried) > _quality(step):
                step = tried
            if step.exact:
                return step
        if step is best:
            return best
        best = step
    return best


def fit_of(
    registry: Registry, name: str, options: Mapping[str, Any], tensors: Shapes, optional: Container[str] = ()
) -> Fit | None:
    """The fit of an architecture with these options; None if they cannot be built."""
    try:
        shapes = {key: value.shape for key, value in registry.build(name, options).state_dict().items()}
    except RecastError:
        return None
    return fit(options, shapes, tensors, optional)


def fit(options: Mapping[str, Any], shapes: Shapes, tensors: Shapes, optional: Container[str]) -> Fit:
    """The fit of an architecture that has these shapes with these options."""
    fitting = sum(shapes.get(key) == shape for key, shape in tensors.items())
    exact = fitting == len(tensors) and all(key in tensors or key in optional for key in shapes)
    return Fit(options, shapes, fitting, exact)


def _quality(fit: Fit) -> tuple[bool, int, int]:
    """Most tensors with a place; of equals, the one with fewer places that stay empty."""
    return fit.exact, fit.fitting, -len(fit.shapes)


def _best_prefix(plain: Fit, uploaded: Shapes, optional: Container[str]) -> tuple[Fit, str]:
    best, prefix = plain, ""
    leads = [lead for lead in prefixes_of(uploaded, plain.shapes) if lead][:MOST_PREFIXES]
    for head in dict.fromkeys([*list(first_segments(uploaded))[:MOST_PREFIXES], *leads]):
        below = _below(uploaded, head, plain.shapes)
        fitting = sum(plain.shapes.get(key) == shape for key, shape in below.items())
        if fitting > best.fitting:
            exact = fitting == len(below) and all(key in below or key in optional for key in plain.shapes)
            best, prefix = replace(plain, fitting=fitting, exact=exact), head
    return best, prefix


def _below(uploaded: Shapes, prefix: str, wanted: Container[str]) -> dict[str, torch.Size]:
    return {name: uploaded[key] for key, name in Reading(prefix).names(uploaded, wanted).items()}


def _changes(registry: Registry, name: str, best: Fit, tensors: Shapes) -> Iterator[dict[str, Any]]:
    """Options with one of them changed, the likeliest first: sizes that differ, then flags and choices."""
    complete = registry.options(name, best.options)
    for held, wanted in _sizes_apart(best.shapes, tensors):
        for option, value in complete.items():
            if isinstance(value, int) and not isinstance(value, bool) and value == held:
                yield {**best.options, option: wanted}
    if best.shapes.keys() != tensors.keys():
        properties = registry.describe(name).options_schema.get("properties", {})
        for option, value in complete.items():
            if isinstance(value, bool):
                yield {**best.options, option: not value}
            for choice in properties.get(option, {}).get("enum", ()):
                if choice != value:
                    yield {**best.options, option: choice}


def _sizes_apart(held: Shapes, tensors: Shapes) -> list[tuple[int, int]]:
    """(size that the architecture has, size that the file has), of axes and of numbered layers, the commonest first."""
    found: dict[tuple[int, int], int] = {}
    for key, shape in tensors.items():
        other = held.get(key)
        if other is not None and len(other) == len(shape):
            for pair in zip(other, shape, strict=True):
                found[pair] = found.get(pair, 0) + (pair[0] != pair[1])
    have, want = counts(held), counts(tensors)
    for stem in have.keys() & want.keys():
        pair = have[stem], want[stem]
        found[pair] = found.get(pair, 0) + (pair[0] != pair[1])
    return sorted((pair for pair, count in found.items() if count), key=lambda pair: -found[pair])
