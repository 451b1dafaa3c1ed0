"""How often a graph must use what the forward uses: sizes touch no weight, and equal computations are made once."""

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from app.conversion.exporters import onnx_dynamo
from app.domain.architecture import Axis, InputSpec, Signature, Uniform
from tests.conversion.verification.direct_path import EXPORTERS, edited, floats, ids, ledger, scattered, written


class RelativePositions(nn.Module):
    """Two attention layers under one bias table, gathered by distances and expanded to the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 2)
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        bias = self.table(places[:, None] - places[None] + 4).permute(2, 0, 1)
        bias = bias[None].expand(x.shape[0], -1, -1, -1)
        for layer in self.layers:
            heads = layer(x).unflatten(2, (2, 3)).transpose(1, 2)
            scores = heads @ heads.transpose(2, 3) + bias
            x = x + (scores.softmax(-1) @ heads).transpose(1, 2).flatten(2)
        return x


@EXPORTERS
def test_a_bias_that_is_expanded_to_the_batch_is_used_where_it_is_added(exporter: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, signature = RelativePositions(), floats(5, 6)
    path = written(module, signature, exporter, tmp_path)
    assert ledger(path, module, signature).problems == ()

    def add_another_at_the_second_layer(model: onnx.ModelProto) -> None:
        producers = {name: node for node in model.graph.node for name in node.output}
        softmax = [node for node in model.graph.node if node.op_type == "Softmax"][1]
        second = producers[softmax.input[0]]
        bias = next(name for name in second.input if producers.get(name, second).op_type != "MatMul")
        model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 2, 5, 5), np.float32), "ones"))
        second.input[list(second.input).index(bias)] = "ones"

    faulty = edited(path, add_another_at_the_second_layer)
    assert any("2 times, but the artifact 1 times" in problem for problem in ledger(faulty, module, signature).problems)


@pytest.mark.parametrize("affine", [True, False])
def test_the_statistics_of_an_instance_norm_are_repeated_for_the_batch(affine: bool, tmp_path: Path) -> None:
    norm = nn.InstanceNorm2d(4, affine=affine, track_running_stats=True)
    module, signature = nn.Sequential(nn.Conv2d(3, 4, 3), norm), floats(3, 8, 8)
    path = written(module, signature, onnx_dynamo, tmp_path)
    assert ledger(path, module, signature).problems == ()
    assert not ledger(path, scattered(module), signature).passed


class Repeated(nn.Module):
    """Looks the same ids up twice: optimisers make one lookup of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other, self.head = nn.Embedding(20, 8), nn.Embedding(20, 8), nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.first(ids) * self.other(ids)) + self.first(ids)


@EXPORTERS
def test_what_the_forward_computes_twice_may_be_computed_once(exporter: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, signature = Repeated(), ids(6, 20)
    path = written(module, signature, exporter, tmp_path)
    assert [node.op_type for node in onnx.load(path).graph.node].count("Gather") == 2
    assert ledger(path, module, signature).problems == ()


@EXPORTERS
@pytest.mark.parametrize("table", ["other.weight", "ones", "zeros"])
def test_another_tensor_in_the_place_of_the_second_computation_fails(
    table: str, exporter: ModuleType, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, signature = Repeated(), ids(6, 20)

    def look_up_another(model: onnx.ModelProto) -> None:
        constant = np.full((20, 8), table == "ones", np.float32)
        if table != "other.weight":
            model.graph.initializer.append(numpy_helper.from_array(constant, table))
        last = model.graph.node[-1]
        first = next(node.output[0] for node in model.graph.node if node.input[0] == "first.weight")
        last.input[list(last.input).index(first)] = "another"
        model.graph.node.insert(0, helper.make_node("Gather", [table, "ids"], ["another"]))

    faulty = edited(written(module, signature, exporter, tmp_path), look_up_another)
    problems = ledger(faulty, module, signature).problems
    assert f"{table} is used where the model uses something else" in problems


class Decoder(nn.Module):
    """Fresh layers are clones: each projects the one memory by equal weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x, x.sin())


@EXPORTERS
def test_equal_weights_on_one_operand_are_one_computation(exporter: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, signature = Decoder(), floats(5, 8)
    path = written(module, signature, exporter, tmp_path)
    assert ledger(path, module, signature).problems == ()
    assert not ledger(path, scattered(module), signature).passed


class Twins(nn.Module):
    """Two inputs under one layer: equal numbers in them, by chance or by design, do not make them one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.layer(left) - self.layer(right) + self.other(left)


def test_two_inputs_are_never_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Twins()
    same = Uniform(low=1, high=1)
    inputs = tuple(InputSpec(name=name, shape=("batch", 4), distribution=same) for name in ("left", "right"))
    signature = Signature(inputs=inputs, axes=(Axis(name="batch", sample=2),))
    nodes = [
        helper.make_node("MatMul", ["left", "w"], ["a"]),
        helper.make_node("MatMul", ["left", "v"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    weights = {"w": module.layer.weight, "v": module.other.weight}
    stored = [numpy_helper.from_array(value.detach().numpy().T.copy(), name) for name, value in weights.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("left", "right", "y")]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:2], ends[2:], stored)), path)
    assert "the model uses layer.weight 2 times, but the artifact 1 times" in ledger(path, module, signature).problems
