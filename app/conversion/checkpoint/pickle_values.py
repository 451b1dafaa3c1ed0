"""What an inert reading of a pickle gives beside plain data: names, what calls would have made, and the vocabulary.

A pickle is a program. Python's unpickler imports what it names and calls what it says; here a global stays a ``Name``,
and a call gives what a rule of our own ``Vocabulary`` makes of its arguments, or a ``Made`` that only remembers it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Rule = Callable[[tuple[Any, ...]], object]
"""What a call of one global means, told its positional arguments. Raises RecastError for arguments it cannot have."""


_SHOWN = 40
"""Characters of a key that is no string."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global as the pickle names it, never imported."""

    dotted: str


@dataclass(eq=False, slots=True)
class Made:
    """What a call of a global would have made: the name, the arguments, and the state given to it afterwards."""

    by: str
    arguments: tuple[Any, ...]
    state: object = None


class Ordered(dict[Any, Any]):
    """A dict made by a call (OrderedDict, defaultdict, Counter): it may be given attributes, as state dicts are."""

    state: object = None


@dataclass(frozen=True, slots=True, eq=False)
class OtherKey:
    """A dict key that is no string, told apart by identity alone: a hash of what a stranger made may cost anything."""

    value: object

    def __str__(self) -> str:
        """Short, at the same cost for whatever a stranger made."""
        value = self.value[:_SHOWN] if isinstance(self.value, bytes) else self.value
        small = isinstance(value, int) and value.bit_length() <= 64
        plain = small or isinstance(value, (float, bytes, type(None)))
        return repr(value)[:_SHOWN] if plain else f"<{type(value).__name__}>"


@dataclass(frozen=True)
class Vocabulary:
    """Which globals a kind of file may name, and what calling them means.

    ``values`` may be named and never called; ``inert`` may be called, and give a Made. Any other global makes the file
    unsafe.
    """

    rules: Mapping[str, Rule]
    values: frozenset[str]
    inert: Callable[[str], bool]

    def knows(self, name: str) -> bool:
        return name in self.rules or name in self.values or self.inert(name)


@dataclass
class Globals:
    """The globals that pickles of one file named, in the order of their first mention."""

    unknown: dict[str, None] = field(default_factory=dict)
    unread: dict[str, None] = field(default_factory=dict)
    """Those of which an object was left unread."""
