import asyncio

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.delivery.onnx_file import (
    GRAPH,
    INITIALIZER,
    MOST,
    MOST_DIMS,
    MOST_FIELDS,
    NotReadable,
    stored_tensors,
    weight_free,
)
from app.targets.onnx.writing.protobuf import len_field


def model(elements: int) -> onnx.ModelProto:
    weights = numpy_helper.from_array(np.ones((elements, 2), np.float32), "fc.weight")
    listed = helper.make_tensor("bias", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", None]) for n in "xy")
    nodes = [helper.make_node("MatMul", ["x", "fc.weight"], ["h"]), helper.make_node("Add", ["h", "bias"], ["y"])]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weights, listed]), producer_name="recast")


def without_weights(content: bytes) -> tuple[bytes, int]:
    """The graph, and how many bytes were read for it."""
    read = 0

    async def some(start: int, end: int) -> bytes:
        nonlocal read
        read += end - start
        return content[start:end]

    return asyncio.run(weight_free(some, len(content))), read


def test_a_graph_keeps_everything_but_the_values_of_its_weights():
    whole = model(1_000_000)
    content = whole.SerializeToString()
    graph, read = without_weights(content)
    assert len(graph) < 1000
    assert read < len(content) / 4
    seen = onnx.load_model_from_string(graph)
    for tensor, original in zip(seen.graph.initializer, whole.graph.initializer, strict=True):
        assert (tensor.name, list(tensor.dims), tensor.data_type) == (
            original.name, list(original.dims), original.data_type,
        )  # fmt: skip
        assert not tensor.raw_data
        assert not tensor.float_data
    for part in ("initializer",):
        seen.graph.ClearField(part)
        whole.graph.ClearField(part)
    assert seen == whole


@pytest.mark.parametrize("cut", [1, 100, -1])
def test_what_is_no_onnx_file_is_not_readable(cut):
    content = model(10).SerializeToString()
    for broken in (content[:cut], content[:20] + b"\xff" * 30 + content[50:]):
        with pytest.raises(NotReadable):
            without_weights(broken)


HOSTILE = {
    "fields of two bytes in the graph": len_field(GRAPH, b"\x10\x00" * MOST_FIELDS),
    "fields of two bytes beside it": b"\x10\x00" * (MOST_FIELDS + 1),
    "much beside the graph": len_field(6, bytes(MOST // 2)) * 3,
    "two graphs": len_field(GRAPH, len_field(2, bytes(MOST // 2))) * 3,
    "initializers of nothing": len_field(GRAPH, len_field(INITIALIZER, b"\x4a\x00") * MOST_FIELDS),
    "names of initializers": len_field(GRAPH, len_field(INITIALIZER, len_field(8, bytes(MOST // 2))) * 3),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_a_lying_file_has_of_fields_and_bytes_is_counted(content):
    with pytest.raises(NotReadable, match="more than"):
        without_weights(content)


def test_a_name_and_a_shape_of_any_length_are_passed_over():
    tensor = len_field(1, bytes(8 << 20)) + len_field(8, bytes(8 << 20)) + len_field(9, b"")

    async def some(start: int, end: int) -> bytes:
        return content[start:end]

    content = len_field(GRAPH, len_field(INITIALIZER, tensor))
    (found,) = asyncio.run(stored_tensors(some, len(content)))
    assert (found.name, found.shape) == ("", (0,) * MOST_DIMS)
