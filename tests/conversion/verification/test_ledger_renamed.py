"""Tensors that lost their names on the direct path: slopes, transposed expressions, constants equal to weights."""

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from app.conversion.exporters import onnx_dynamo
from tests.conversion.verification.direct_path import EXPORTERS, edited, floats, ledger, scattered, written


class Slopes(nn.Module):
    """Slopes that are one number each, and a constant of the model that is the slopes' default."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)])
        self.slopes = nn.ModuleList([nn.PReLU(), nn.PReLU()])

    def forward(self, x: Tensor) -> Tensor:
        for layer, slope in zip(self.layers, self.slopes, strict=True):
            x = slope(layer(x)) * 0.25
        return x


def slopes_of(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    names = [node.input[1] for node in model.graph.node if node.op_type == "PRelu"]
    return [tensor for name in names for tensor in model.graph.initializer if tensor.name == name]


@EXPORTERS
@pytest.mark.parametrize("fresh", [True, False])
def test_slopes_that_are_one_number_are_held_to_theirs(fresh: bool, exporter: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, signature = Slopes(), floats(3, 4, 4)
    path = written(module if fresh else scattered(module), signature, exporter, tmp_path)
    assert ledger(path, module, signature).problems == ()

    def change(model: onnx.ModelProto) -> None:
        for slope in slopes_of(model)[-1:]:
            value = numpy_helper.to_array(slope) * np.float32(1.1)
            slope.CopyFrom(numpy_helper.from_array(value, slope.name))

    def exchange(model: onnx.ModelProto) -> None:
        first, last = slopes_of(model)
        first.raw_data, last.raw_data = last.raw_data, first.raw_data

    assert not ledger(edited(path, change), module, signature).passed
    if not fresh:
        assert not ledger(edited(path, exchange), module, signature).passed


@pytest.mark.parametrize("outputs", [4, 6])
def test_an_expression_may_be_stored_transposed(outputs: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, outputs)), nn.ReLU())
    signature = floats(5, 6)
    path = written(scattered(module), signature, onnx_dynamo, tmp_path)
    assert ledger(path, module, signature).problems == ()

    def change(model: onnx.ModelProto) -> None:
        weight = next(tensor for tensor in model.graph.initializer if sorted(tensor.dims) == sorted((6, outputs)))
        value = numpy_helper.to_array(weight).copy()
        value[1, 2] *= 1.001
        weight.CopyFrom(numpy_helper.from_array(value, weight.name))

    def transpose(model: onnx.ModelProto) -> None:
        weight = next(tensor for tensor in model.graph.initializer if sorted(tensor.dims) == sorted((6, outputs)))
        value = np.ascontiguousarray(numpy_helper.to_array(weight).T).reshape(tuple(weight.dims))
        weight.CopyFrom(numpy_helper.from_array(value, weight.name))

    assert not ledger(edited(path, change), module, signature).passed
    if outputs == 6:  # for other shapes the operators' own shape rules decide
        assert not ledger(edited(path, transpose), module, signature).passed


class Plain(nn.Module):
    """A norm without a weight, whose place the exporter fills with ones, before a fresh one that is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.plain = nn.ConvTranspose2d(3, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8, affine=False)
        self.second, self.norm = nn.ConvTranspose2d(8, 8, 3, groups=4), nn.BatchNorm2d(8)
        for norm in (self.plain, self.norm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(torch.relu(self.plain(self.first(x)))))


@EXPORTERS
def test_a_constant_equal_to_a_folded_weight_is_not_the_weight(exporter: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, signature = Plain(), floats(3, 8, 8)
    path = written(module, signature, exporter, tmp_path)
    assert ledger(path, module, signature).problems == ()
    assert not ledger(path, scattered(module), signature).passed


@pytest.mark.parametrize("affine", [True, False])
def test_statistics_equal_to_what_stands_for_missing_weights_pass(affine: bool, tmp_path: Path) -> None:
    layers = [
        part
        for _ in range(2)
        for part in (nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3, affine=affine, track_running_stats=True))
    ]
    module, signature = nn.Sequential(*layers), floats(3, 8, 8)
    path = written(module, signature, onnx_dynamo, tmp_path)
    assert ledger(path, module, signature).problems == ()
    assert not ledger(path, scattered(module), signature).passed


def test_a_number_repeated_is_no_part_of_a_weight_that_repeats_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, signature = nn.Sequential(nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1)), floats(8, 4, 4)
    path = written(module, signature, onnx_dynamo, tmp_path)
    assert ledger(path, module, signature).problems == ()

    def lose_the_scale(model: onnx.ModelProto) -> None:
        ones = next(t for t in model.graph.initializer if list(t.dims) == [8, 1, 1] and numpy_helper.to_array(t).all())
        ones.CopyFrom(numpy_helper.from_array(np.zeros((8, 1, 1), np.float32), ones.name))

    assert "0.weight: unaccounted" in ledger(edited(path, lose_the_scale), module, signature).problems[0]
