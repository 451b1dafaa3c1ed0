"""What verification audits in a graph of OpenVINO: the constants that it computes with."""

from collections.abc import Iterator
from math import isfinite
from xml.etree import ElementTree

import numpy as np
import torch

from app.targets.artifact import GraphConstants
from app.targets.openvino.reading.ir import OpenVinoFile

_NORMS = {"BatchNormInference": "batch_norm", "GroupNormalization": "group_norm", "MVN": "mvn"}
"""MVN is what layer, instance and group norms are made of, so how many there are tells nothing of either."""
_LARGEST_EPSILON = 0.05
"""A larger constant added before a square root is arithmetic (asinh: 1), not an epsilon."""
_BODIES = frozenset({"Loop", "TensorIterator", "If"})
_UNBOUNDED = float(np.finfo(np.float32).max)
"""What a side of a clamp has that is open."""


def constants(file: OpenVinoFile) -> GraphConstants:
    """What the graph computes with."""
    layers = [(layer.get("type", ""), _attributes(layer)) for layer in file.layers]
    kinds = [kind for kind, _ in layers]
    forms = [told.get("approximation_mode", "").upper() for kind, told in layers if kind == "Gelu"]
    norms = [(_NORMS[kind], told.get("epsilon", told.get("eps"))) for kind, told in layers if kind in _NORMS]
    return GraphConstants(
        norms=tuple((kind, float(epsilon)) for kind, epsilon in norms if epsilon is not None),
        hidden=tuple(_hidden_epsilons(file)),
        erf=kinds.count("Erf") + forms.count("ERF"),
        tanh_gelu=forms.count("TANH"),
        bounds=tuple(bound for kind, told in layers if kind == "Clamp" for bound in _bounds(told)),
        straight=_BODIES.isdisjoint(kinds),
    )


def _attributes(layer: ElementTree.Element) -> dict[str, str]:
    data = layer.find("data")
    return {} if data is None else dict(data.attrib)


def _bounds(told: dict[str, str]) -> Iterator[float]:
    for side in ("min", "max"):
        bound = float(told.get(side, "inf"))
        if isfinite(bound) and abs(bound) < _UNBOUNDED:
            yield bound


def _hidden_epsilons(file: OpenVinoFile) -> Iterator[float]:
    """Numbers c of Sqrt(Add(x, c)) with 0 < c ≤ _LARGEST_EPSILON in the main graph."""
    named = {layer.get("id"): layer for layer in file.net.iterfind("layers/layer")}
    feeds: dict[str | None, list[ElementTree.Element]] = {}
    for edge in file.net.iterfind("edges/edge"):
        feeds.setdefault(edge.get("to-layer"), []).append(named[edge.get("from-layer")])
    numbers = {
        place: float(torch.frombuffer(bytearray(tensor.data), dtype=tensor.dtype))
        for tensor in file.tensors
        for place in (tensor.name, *tensor.aliases)
        if tensor.dims == () and tensor.dtype is not None and tensor.dtype.is_floating_point
    }
    for root in named.values():
        if root.get("type") == "Sqrt":
            for added in (layer for layer in feeds.get(root.get("id"), ()) if layer.get("type") == "Add"):
                for operand in feeds.get(added.get("id"), ()):
                    if 0 < numbers.get(operand.get("name", ""), 0) <= _LARGEST_EPSILON:
                        yield numbers[operand.get("name", "")]
