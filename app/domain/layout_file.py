"""Layouts of many architectures as one JSON document, in which keys and tensors stand once.

::

    {"source": "timm", "version": "1.0.26",
     "keys": ["conv1.weight", ...],
     "tensors": [[[64, 3, 7, 7], "float", false], [[[1000, [["num_classes", 1, 1]]], 512], "float", false], ...],
     "layouts": [{"architecture": "timm/resnet18", "chosen": {}, "defaults": {"num_classes": 1000},
                  "inert": [...], "same": {...}, "growths": [["num_hidden_layers", "encoder.layer", 12, 1]],
                  "places": [0, 0, 1, 1, ...]}]}

``places`` holds pairs: the number of a key and that of its tensor.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from app.domain.base import Value
from app.domain.layout import Axis, Growth, Kind, Layout, TensorLayout, Term

_Count = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
_Slope = Annotated[float, Field(allow_inf_nan=False)]
_Term = tuple[str, int | _Slope, Literal[1, 2]]
_Axis = _Count | tuple[_Count, tuple[_Term, ...]]


class _Head(Value):
    architecture: str
    chosen: dict[str, Any]
    defaults: dict[str, int | _Slope]
    inert: tuple[str, ...]
    same: dict[str, tuple[Any, ...]]
    growths: tuple[tuple[str, str, _Count, Annotated[float, Field(gt=0, allow_inf_nan=False)]], ...]


class _Layout(_Head):
    places: tuple[_Count, ...]


class _Document(Value):
    source: str
    version: str
    keys: tuple[str, ...]
    tensors: tuple[tuple[tuple[_Axis, ...], Kind, bool], ...]
    layouts: tuple[_Layout, ...]


_document = TypeAdapter(_Document)


@dataclass(frozen=True)
class LayoutFile:
    """Layouts as they are kept in memory: in numbers, of which one at a time is made a Layout."""

    source: str
    """Library or plug-in."""
    version: str
    """Version of the library, or digest of the plug-in's source."""
    keys: tuple[str, ...]
    tensors: tuple[TensorLayout, ...]
    heads: tuple[_Head, ...]
    """Of each layout all but its places."""
    places: tuple["array[int]", ...]

    def layout(self, number: int) -> Layout:
        head, places = self.heads[number], self.places[number]
        keys, tensors = self.keys, self.tensors
        return Layout(
            architecture=head.architecture,
            chosen=head.chosen,
            defaults=head.defaults,
            tensors={keys[places[i]]: tensors[places[i + 1]] for i in range(0, len(places), 2)},
            growths=tuple(Growth(*growth) for growth in head.growths),
            inert=frozenset(head.inert),
            same=head.same,
        )


def dump(source: str, version: str, layouts: Iterable[Layout]) -> dict[str, Any]:
    """The document of these layouts."""
    keys: dict[str, int] = {}
    tensors: dict[TensorLayout, int] = {}
    told = []
    for layout in layouts:
        places: list[int] = []
        for key, tensor in layout.tensors.items():
            places += (keys.setdefault(key, len(keys)), tensors.setdefault(tensor, len(tensors)))
        told.append(
            {
                "architecture": layout.architecture,
                "chosen": dict(layout.chosen),
                "defaults": dict(layout.defaults),
                "inert": sorted(layout.inert),
                "same": {option: list(choices) for option, choices in layout.same.items()},
                "growths": [[growth.option, growth.stem, growth.count, growth.per] for growth in layout.growths],
                "places": places,
            }
        )
    return {
        "source": source,
        "version": version,
        "keys": list(keys),
        "tensors": [_dumped(tensor) for tensor in tensors],
        "layouts": told,
    }


def load(document: str | bytes) -> LayoutFile:
    """The document in memory. Raises ValueError for what is none, such as a plug-in's process may tell."""
    told = _document.validate_json(document)
    for layout in told.layouts:
        keys, tensors = layout.places[::2], layout.places[1::2]
        if len(keys) != len(tensors) or not all(
            key < len(told.keys) and tensor < len(told.tensors) for key, tensor in zip(keys, tensors, strict=True)
        ):
            raise ValueError(f"The places of {layout.architecture} are none of this document's.")
        rules = {
            term[0]
            for tensor in tensors
            for axis in told.tensors[tensor][0]
            if isinstance(axis, tuple)
            for term in axis[1]
        }
        if not rules | {growth[0] for growth in layout.growths} <= layout.defaults.keys():
            raise ValueError(f"{layout.architecture} follows options whose defaults are not told.")
    return LayoutFile(
        source=told.source,
        version=told.version,
        keys=told.keys,
        tensors=tuple(_loaded(*tensor) for tensor in told.tensors),
        heads=told.layouts,
        places=tuple(array("I", layout.places) for layout in told.layouts),
    )


def _dumped(tensor: TensorLayout) -> list[Any]:
    axes = [
        [axis.size, [[term.option, term.slope, term.power] for term in axis.terms]] if isinstance(axis, Axis) else axis
        for axis in tensor.axes
    ]
    return [axes, tensor.kind, tensor.optional]


def _loaded(axes: tuple[_Axis, ...], kind: Kind, optional: bool) -> TensorLayout:
    read = (Axis(axis[0], tuple(Term(*term) for term in axis[1])) if isinstance(axis, tuple) else axis for axis in axes)
    return TensorLayout(tuple(read), kind, optional)
