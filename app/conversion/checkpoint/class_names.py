"""The names of a model's classes, where a training script saved them beside the weights."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

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
    found = set(_found(root))
    return found.pop() if len(found) == 1 else ()


def named_by(mapping: Mapping[Any, Any]) -> tuple[str, ...]:
    """Names by index, of {0: "cat", "1": "dog"}; () unless the indices count from 0 without a gap."""
    indexed = {str(key): value for key, value in mapping.items()}
    return _names([indexed.get(str(index)) for index in range(min(len(indexed), MOST + 1))])


def _found(root: object) -> Iterator[tuple[str, ...]]:
    """Level by level: what is in many places is met first where it is least deep, and is read there alone."""
    level, seen, read = [root], {id(root)}, set[tuple[int, object]]()
    for _ in range(DEEPEST + 1):
        below: list[object] = []
        for key, member in (item for node in level if isinstance(node, Mapping) for item in node.items()):
            reading = _reading(key, member)
            if reading is None and isinstance(member, Mapping) and id(member) not in seen:
                seen.add(id(member))
                below.append(member)
            elif reading is not None and (id(member), reading) not in read:
                read.add((id(member), reading))
                if names := reading(member):
                    yield names
        level = below


def _reading(key: object, member: object) -> Callable[[Any], tuple[str, ...]] | None:
    if key in LISTS and isinstance(member, list | tuple):
        return _names
    if key in BY_INDEX and isinstance(member, Mapping):
        return named_by
    return _by_name if key in BY_NAME and isinstance(member, Mapping) else None


def _by_name(mapping: Mapping[Any, Any]) -> tuple[str, ...]:
    if not all(isinstance(index, str) or (type(index) is int and 0 <= index < MOST) for index in mapping.values()):
        return ()  # nor are hashes of other things asked for, which may cost anything
    return named_by({index: name for name, index in mapping.items()})


def _names(values: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    good = 0 < len(values) <= MOST and all(isinstance(name, str) and 0 < len(name) <= LONGEST for name in values)
    return tuple(values) if good else ()
