"""How often a graph must use what the forward uses: sizes touch no weight, and equal computations are made once."""

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from app.conversion.exporters import onnx_dynamo
from tests.conversion.verification.direct_path import EXPORTERS, edited, floats, ledger, scattered, written


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
