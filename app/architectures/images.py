"""Options and inputs that image models share."""

from collections.abc import Mapping
from typing import Any

from app.domain.architecture import InputSpec, Normal

LARGEST_SIDE = 4096
"""Pixels. Bounds what an option can make a module allocate while it is built."""
MOST_CLASSES = 100_000
MOST_CHANNELS = 1024


def num_classes_property(default: int, *, minimum: int = 1) -> dict[str, Any]:
    """The option ``num_classes``."""
    return {"type": "integer", "minimum": minimum, "maximum": MOST_CLASSES, "default": default}


def image_size_property(
    default: tuple[int, int], *, minimum: int = 1, multiple_of: int = 1, square: bool = False
) -> dict[str, Any]:
    """The option ``image_size``: a side, or [height, width] where the model takes it. In pixels."""
    side: dict[str, Any] = {"type": "integer", "minimum": minimum, "maximum": LARGEST_SIDE}
    if multiple_of > 1:
        side["multipleOf"] = multiple_of
    if square:
        return {**side, "default": default[0]}
    pair = {"type": "array", "items": side, "minItems": 2, "maxItems": 2}
    return {"anyOf": [side, pair], "default": default[0] if default[0] == default[1] else list(default)}


def size_pair(options: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width that the option ``image_size`` means."""
    size = options["image_size"]
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def normalised_images(name: str, *shape: int | str, preprocessing: str | None = None) -> InputSpec:
    """A float input of pixels normalised per channel: about zero mean and unit variance."""
    return InputSpec(name=name, shape=shape, distribution=Normal(), preprocessing=preprocessing)
