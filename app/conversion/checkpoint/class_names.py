"""The names of a model's classes, where a training script saved them beside the weights."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.conversion.checkpoint.pickle_values import OtherKey

LISTS = ("class_names", "classes", "labels", "label_names", "names", "categories", "CLASSES")
"""Members that hold the names in the order of the outputs; Ultralytics and mmdetection write the last ones."""
BY_INDEX = ("id2label", "idx_to_class", "index_to_class", "names")
BY_NAME = ("class_to_idx", "label2id", "class_to_index")
"""Members that hold name to index; torchvision's datasets call theirs the first."""
MOST = 100_000
LONGEST = 200
"""Characters of a name."""
DEEPEST = 4


def class_names(root: object) -> tuple[str, ...]:
    """Names in the order of the outputs, () where the file holds none or more than one list of them."""
    found = set(_found(root, 0))
    return found.pop() if len(found) == 1 else ()


def named_by(mapping: Mapping[Any, Any]) -> tuple[str, ...]:
    """Names by index, of {0: "cat", "1": "dog"}; () unless the indices count from 0 without a gap."""
    indexed = {str(key): value for key, value in mapping.items()}
    return _names([indexed.get(str(index)) for index in range(min(len(indexed), MOST + 1))])


def _found(value: object, depth: int) -> Iterator[tuple[str, ...]]:
    if not isinstance(value, Mapping) or depth > DEEPEST:
        return
    for key, member in value.items():
        names: tuple[str, ...] = ()
        if key in LISTS and isinstance(member, list | tuple):
            names = _names(member)
        elif key in BY_INDEX and isinstance(member, Mapping):
            names = named_by(member)
        elif key in BY_NAME and isinstance(member, Mapping):
            names = named_by({_plain(index): name for name, index in member.items()})
        elif isinstance(member, Mapping):
            yield from _found(member, depth + 1)
        if names:
            yield names


def _plain(value: object) -> object:
    return value.value if isinstance(value, OtherKey) else value


def _names(values: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    good = 0 < len(values) <= MOST and all(isinstance(name, str) and 0 < len(name) <= LONGEST for name in values)
    return tuple(values) if good else ()
