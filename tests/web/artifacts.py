"""Artifacts for pages that read them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def onnx_file(weight: float = 0.5) -> bytes:
    """y = x · fc.weight + norm.bias, whose weights are ``weight`` and 1."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    weights = {"fc.weight": np.full((4, 4), weight, np.float32), "norm.bias": np.ones(4, np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "fc.weight"], ["h"]), helper.make_node("Add", ["h", "norm.bias"], ["y"])]
    stored = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], stored)).SerializeToString()
