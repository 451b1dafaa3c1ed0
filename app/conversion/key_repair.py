"""Taking what wrappers add out of uploaded keys: ``module.`` (DataParallel), ``_orig_mod.`` (compile), ``model.``.

Wrapper segments lead the keys, or stand inside where a part of a model was wrapped. Here are only the readings of a
file's keys that could be meant; which one is, the loading proves: its keys must then stand in a bijection, by name and
shape, with those of the architecture. Nothing is guessed.
"""

from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from app.domain.checkpoint import Repair

Shapes = Mapping[str, tuple[int, ...]]

LEADING = frozenset({"module", "_orig_mod", "model", "ema_model", "_forward_module", "net", "_fsdp_wrapped_module"})
"""First segments that wrappers add: DataParallel and AveragedModel, torch.compile, Lightning modules, ema-pytorch,
Lightning Fabric, and FSDP."""
INNER = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Segments that torch's wrappers of a part add: DistributedDataParallel, compile, FSDP, activation checkpointing."""
MOST_LEADING = 8
"""Wrappers around one model that are looked for."""
MOST_STACKS = 12
"""Leading wrapper segments that are tried, the commonest of the file; each try loads the file once."""


@dataclass(frozen=True)
class Reading:
    """One way to read a file's keys: those below ``prefix``, without it and without the ``removed`` segments."""

    prefix: str = ""
    removed: frozenset[str] = frozenset()

    def name(self, key: str) -> str | None:
        """What the architecture would call this key; None for a key that lies outside of the prefix."""
        if not key.startswith(self.prefix):
            return None
        name = key[len(self.prefix) :]
        if self.removed:
            name = ".".join(part for part in name.split(".") if part not in self.removed)
        return name or None

    def names(self, keys: Collection[str], wanted: Container[str] = ()) -> dict[str, str]:
        """Uploaded key to name, for the keys below the prefix and for others that have a wanted name as they are.

        Empty if two keys would get one name.
        """
        below = {key: name for key in keys if (name := self.name(key)) is not None}
        taken = set(below.values())
        if len(taken) < len(below):
            return {}
        return below | {key: key for key in keys if key not in below and key in wanted and key not in taken}

    def repair(self, named: Mapping[str, str]) -> Repair | None:
        """What this reading did to the keys, for the report; None if it is the plain one."""
        if not self.prefix and not self.removed:
            return None
        changed = [(key, name) for key, name in named.items() if key != name]
        present = {part for key in named for part in key.split(".") if part in self.removed}
        return Repair(
            stripped_prefix=self.prefix,
            removed_segments=tuple(f"{part}." for part in sorted(present)),
            keys=len(changed),
            examples=tuple(changed[:3]),
        )


def readings(keys: Iterable[str], prefix: str | None) -> list[Reading]:
    """The readings to try, plainest first. A prefix that the client names is the only one looked at."""
    keys = list(keys)
    stacks = [prefix] if prefix is not None else ["", *_stacks(keys)]
    inner = frozenset({part for key in keys for part in INNER if f".{part}." in f".{key}"})
    found = [Reading(stack) for stack in stacks]
    return [*found, *(Reading(stack, inner) for stack in stacks if inner)]


def first_segments(keys: Iterable[str]) -> dict[str, int]:
    """How many keys begin with each first segment, its dot included, the commonest first."""
    counts: dict[str, int] = {}
    for key in keys:
        head, dot, _ = key.partition(".")
        if dot:
            counts[head + dot] = counts.get(head + dot, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def prefixes_of(keys: Iterable[str], names: Collection[str]) -> list[str]:
    """What leads a key to one of these names, at any depth: found by the name that says most, the shortest first."""
    wanted = max(names, key=len, default="")
    found = dict.fromkeys(key[: -len(wanted)] for key in keys if wanted and key.endswith(wanted))
    return sorted((lead for lead in found if not lead or lead.endswith(".")), key=lambda lead: lead.count("."))


def fits(uploaded: Shapes, shapes: Shapes, optional: Container[str]) -> bool:
    """Whether every tensor has a place of its shape and every place that needs a tensor has one."""
    return all(shapes.get(name) == shape for name, shape in uploaded.items()) and all(
        name in uploaded or name in optional for name in shapes
    )


def _stacks(keys: Iterable[str]) -> list[str]:
    """Leading wrapper segments that most keys have: "module.", "module._orig_mod.", and so on, the shortest first."""
    counts = Counter(stack for key in keys for stack in _stacks_of(key))
    return sorted((stack for stack, _ in counts.most_common(MOST_STACKS)), key=lambda stack: (stack.count("."), stack))


def _stacks_of(key: str) -> Iterator[str]:
    end = 0
    for _ in range(MOST_LEADING):
        dot = key.find(".", end)
        if dot < 0 or key[end:dot] not in LEADING:
            return
        end = dot + 1
        yield key[:end]
