import asyncio

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.delivery.onnx_file import NotReadable, weight_free


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
