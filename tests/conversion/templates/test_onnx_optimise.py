"""Our selection of rewrite rules gives the graph that onnxscript's whole optimiser gives."""

from collections import Counter

import onnx_ir as ir
import onnxscript.optimizer
import pytest
from torch import nn

from app.conversion.templates.onnx_optimise import optimise
from tests.conversion.templates.capturing import Attention, ConvNet, capture_onnx, train_a_little


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
