"""What an ONNX file says of itself, read back from its final bytes: graph without weights, opset, axes, validity."""

from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

import onnx

from app.targets.onnx.reading.wire import DELIMITED, Buffer, fields

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_SMALL = 4096
"""Initializers up to this many bytes are kept: scalars and shapes, which an audit reads."""


def read_graph(path: Path) -> onnx.ModelProto:
    """The model with its large initializers left out: nothing proportional to the weights is read or copied.

    Field numbers are those of onnx.proto. Raises google.protobuf's DecodeError or MalformedFile on a damaged file.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as buffer:
        model = onnx.ModelProto()
        for field, wire_type, start, end in fields(buffer, 0, len(buffer)):
            if field == _MODEL_GRAPH and wire_type == DELIMITED:
                model.graph.MergeFromString(b"".join(_kept(buffer, start, end)))
        rest = b"".join(_without(buffer, 0, len(buffer), _MODEL_GRAPH))
        model.MergeFromString(rest)
        return model


def _kept(buffer: Buffer, start: int, end: int) -> Iterator[bytes]:
    """The graph's fields as they stand, except large initializers."""
    begun = start
    for field, _, value, stop in fields(buffer, start, end):
        if not (field == _GRAPH_INITIALIZER and stop - value > _SMALL):
            yield buffer[begun:stop]
        begun = stop


def _without(buffer: Buffer, start: int, end: int, unwanted: int) -> Iterator[bytes]:
    begun = start
    for field, _, _, stop in fields(buffer, start, end):
        if field != unwanted:
            yield buffer[begun:stop]
        begun = stop


def check_file(path: Path) -> str | None:
    """onnx.checker with full shape inference on the file (external data included); the complaint, or None."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as complaint:  # noqa: BLE001 - ValidationError, InferenceError, DecodeError: all mean "refused"
        return str(complaint).strip()
    return None


def opset_of(model: onnx.ModelProto) -> int | None:
    """The version of the default operator set that the file declares."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)


def input_axes(model: onnx.ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Each graph input's shape as written: sizes, and names of symbolic axes ("?" where unnamed)."""
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in value.type.tensor_type.shape.dim
        )
        for value in model.graph.input
    }


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the graph, of subgraphs in attributes, of local functions."""
    yield from _nodes(model.graph.node)
    for function in model.functions:
        yield from _nodes(function.node)


def _nodes(nodes: list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)
