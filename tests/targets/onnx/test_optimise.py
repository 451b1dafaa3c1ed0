"""Our selection of rewrite rules gives the graph that onnxscript's whole optimiser gives, but valid."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript.optimizer
import pytest
from onnx.reference import ReferenceEvaluator
from torch import nn

from app.targets.onnx.writing.optimise import optimise
from tests.targets.capturing import Attention, ConvNet, capture_onnx, train_a_little


def with_weights_as_inputs(kind: type[nn.Module]) -> ir.Model:
    model = capture_onnx(train_a_little(kind(), 1)).captured.model
    weights = [value for name, value in model.graph.initializers.items() if name in kind().state_dict()]
    for value in weights:
        del model.graph.initializers[str(value.name)]
        value.const_value = None
    model.graph.inputs.extend(weights)
    return model


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("kind", [ConvNet, Attention])
def test_the_graph_is_the_same(kind: type[nn.Module]) -> None:
    ours, theirs = with_weights_as_inputs(kind), with_weights_as_inputs(kind)
    before = operators(ours)
    optimise(ours)
    onnxscript.optimizer.optimize(theirs)
    assert operators(ours) == operators(theirs)
    assert operators(ours).total() < before.total()


@pytest.mark.parametrize(
    ("first", "second"), [("Flatten <axis = 1>", "Flatten <axis = 2>"), ("Flatten <axis = 1>", "Flatten <axis = 1>")]
)
def test_two_rewrites_of_one_value_keep_a_constant_each(first: str, second: str) -> None:
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
    twice (float[2, 3, 4] x) => (float[n, m] a, float[k, l] b) {{ a = {first} (x)  b = {second} (x) }}"""
    plain = onnx.parser.parse_model(text)
    model = ir.from_proto(plain)
    optimise(model)
    optimised = ir.to_proto(model)
    onnx.checker.check_model(optimised)
    x = {"x": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}
    expected, given = ReferenceEvaluator(plain).run(None, x), ReferenceEvaluator(optimised).run(None, x)
    for one, other in zip(expected, given, strict=True):
        np.testing.assert_array_equal(other, one)
