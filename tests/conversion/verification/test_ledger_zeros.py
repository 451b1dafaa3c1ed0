"""Zeros that are only added may be left out or stored once; nothing else may come into their place."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from app.domain.architecture import Signature
from tests.conversion.verification.direct_path import EXPORTERS, edited, floats, ledger, scattered, written


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False)


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3))


FRESH: dict[str, tuple[Callable[[], nn.Module], Signature]] = {
    "perceptron": (perceptron, floats(4)),
    "attention": (Attention, floats(5, 8)),
    "encoder": (encoder, floats(5, 8)),
    "convolutions": (convolutions, floats(3, 8, 8)),
}


def without_biases(module: nn.Module) -> nn.Module:
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    return module


@EXPORTERS
@pytest.mark.parametrize("biases", ["fresh", "zero"])
@pytest.mark.parametrize("network", FRESH)
def test_a_network_whose_biases_are_zero_passes(
    network: str, biases: str, exporter: ModuleType, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    build, signature = FRESH[network]
    module = without_biases(build()) if biases == "zero" else build()
    path = written(module, signature, exporter, tmp_path)
    assert ledger(path, module, signature).problems == ()
    assert not ledger(path, scattered(module), signature).passed


def chain(biases: list[str | None]) -> list[onnx.NodeProto]:
    """The perceptron as optimisers write it: a layer without a bias takes two operands."""
    nodes, value = [], "x"
    for place, bias in enumerate(biases):
        operands = [value, f"w{place}", *([bias] if bias else [])]
        nodes.append(helper.make_node("Gemm", operands, [f"h{place}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"h{place}"], [f"r{place}"]))
        value = f"r{place}"
    nodes[-1:] = []
    nodes[-1].output[0] = "y"
    return nodes


def problems_of(module: nn.Module, biases: list[str | None], directory: Path) -> tuple[str, ...]:
    """What the ledger says of a file whose layers have these biases: b0, b1, b2, ones or zeros."""
    state = module.state_dict()
    tensors = {f"w{place}": state[f"{2 * place}.weight"] for place in range(3)}
    tensors |= {f"b{place}": state[f"{2 * place}.bias"] for place in range(3)}
    tensors |= {"ones": torch.ones(4), "zeros": torch.zeros(4)}
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith("w") or name in biases}
    stored = [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in kept.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    path = directory / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph(chain(biases), "g", ends[:1], ends[1:], stored)), path)
    return ledger(path, module, floats(4)).problems


def with_zeros(*places: int) -> nn.Module:
    """The perceptron, with the biases of these layers zero and all others not."""
    torch.manual_seed(0)
    module = perceptron()
    for place in places:
        nn.init.zeros_(module[2 * place].bias)
    return module


@pytest.mark.parametrize(
    ("zero", "biases"),
    [
        ([0], [None, "b1", "b2"]),
        ([0], ["zeros", "b1", "b2"]),
        ([1], ["b0", None, "b2"]),
        ([0, 2], [None, "b1", "zeros"]),
        ([0, 1, 2], [None, None, None]),
    ],
)
def test_zeros_may_be_left_out(zero: list[int], biases: list[str | None], tmp_path: Path) -> None:
    assert problems_of(with_zeros(*zero), biases, tmp_path) == ()


@pytest.mark.parametrize(
    ("zero", "biases"),
    [
        ([], [None, "b1", "b2"]),
        ([], ["zeros", "b1", "b2"]),
        ([0], [None, "zeros", "b2"]),
        ([0], [None, None, "b2"]),
        ([0], ["b1", "b1", "b2"]),
        ([0], ["b1", None, "b2"]),
        ([0], ["b1", "b0", "b2"]),
        ([0], ["b1", "b2", None]),
        ([0], [None, "b2", "b1"]),
        ([0], ["ones", "b1", "b2"]),
        ([1], ["b0", "b0", "b2"]),
        ([1], ["b0", "b2", None]),
        ([1], [None, "b0", "b2"]),
        ([1, 2], [None, "b0", None]),
        ([0, 1], [None, "b2", None]),
        ([0, 1], ["b2", None, None]),
        ([0, 1, 2], [None, "ones", None]),
    ],
)
def test_another_tensor_in_the_place_of_zeros_fails(zero: list[int], biases: list[str | None], tmp_path: Path) -> None:
    assert problems_of(with_zeros(*zero), biases, tmp_path) != ()


@EXPORTERS
def test_a_branch_elsewhere_in_the_graph_changes_nothing(exporter: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, signature = with_zeros(0), floats(4)

    def put_a_branch_in(model: onnx.ModelProto) -> None:
        value = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
        body = helper.make_graph([helper.make_node("Add", ["y", "c"], ["r"])], "g", [], [value])
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "c"))
        model.graph.node.append(helper.make_node("If", ["always"], ["unused"], then_branch=body, else_branch=body))

    path = edited(written(module, signature, exporter, tmp_path), put_a_branch_in)
    assert ledger(path, module, signature).problems == ()


def test_an_equal_bias_of_two_layers_moved_to_one_without_fails(tmp_path: Path) -> None:
    module = with_zeros(0)
    module[4].load_state_dict(module[4].state_dict() | {"bias": module[2].bias.detach()})
    assert problems_of(module, [None, "b1", "b1"], tmp_path) == ()
    assert problems_of(module, ["b1", "b1", None], tmp_path) != ()
    assert problems_of(module, ["b1", None, "b1"], tmp_path) != ()


def test_a_left_out_zero_is_called_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = with_zeros(0)
    state = module.state_dict()
    path = tmp_path / "model.onnx"
    assert problems_of(module, [None, "b1", "b2"], tmp_path) == ()
    entry = next(entry for entry in ledger(path, module, floats(4)).entries if entry.tensor == "0.bias")
    assert (entry.ledger_class, entry.initializers, entry.bytes) == ("folded", (), state["0.bias"].nbytes)
    assert entry.detail == "zeros that are only added, which the exporter may leave out"
