"""A template's claims are recomputed from the upload, and whatever is not as claimed fails."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from app.conversion.verification.claims import ConvBnFold, InitializerClaim
from app.conversion.verification.ledger.ledger import onnx_ledger
from app.domain.checkpoint import LoadReport
from app.domain.report import Ledger


def network() -> nn.Sequential:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 2, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 4)).eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.1)
    return module


def ledger_of(
    path: Path, module: nn.Module, initializers: dict[str, Tensor], claims: dict[str, InitializerClaim]
) -> Ledger:
    stored = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in initializers.items()]
    graph = helper.make_graph([], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], stored)
    onnx.save(helper.make_model(graph), path)
    return onnx_ledger(path, dict(module.state_dict()), LoadReport(strict=True), module, claims)


FOLD = ("0.weight", None, "1.weight", "1.bias", "1.running_mean", "1.running_var")


def template(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, InitializerClaim]]:
    """What a template with a folded convolution and a transposed linear layer writes and claims."""
    state = module.state_dict()
    scale = state["1.weight"] / torch.sqrt(state["1.running_var"] + 1e-5)
    weight, bias = ConvBnFold("weight", *FOLD, eps=1e-5), ConvBnFold("bias", *FOLD, eps=1e-5)
    initializers = {
        "w": state["0.weight"] * scale[:, None, None, None],
        "b": state["1.bias"] - state["1.running_mean"] * scale,
        "t": state["3.weight"].t().contiguous(),
        "3.bias": state["3.bias"].reshape(1, 4),
        "c": torch.tensor([3.0, 4.0]),
    }
    claims = {
        "w": InitializerClaim("folded", weight.tensors, fold=weight),
        "b": InitializerClaim("folded", bias.tensors, fold=bias),
        "t": InitializerClaim("transposed", ("3.weight",), perm=(1, 0)),
        "3.bias": InitializerClaim("reshaped", ("3.bias",)),
        "c": InitializerClaim("constant", sha256=hashlib.sha256(np.array([3, 4], np.float32).tobytes()).hexdigest()),
    }
    return initializers, claims


def test_claims_that_hold_account_for_every_tensor(tmp_path: Path) -> None:
    module = network()
    ledger = ledger_of(tmp_path / "m.onnx", module, *template(module))
    assert ledger.problems == ()
    assert {entry.tensor: entry.ledger_class for entry in ledger.entries} == {
        "0.weight": "folded",
        "1.weight": "folded",
        "1.bias": "folded",
        "1.running_mean": "folded",
        "1.running_var": "folded",
        "1.num_batches_tracked": "unused",
        "3.weight": "transposed",
        "3.bias": "identical",
    }
    assert sum(ledger.bytes_by_class.values()) == ledger.uploaded_bytes
    assert sum(ledger.bytes_by_origin.values()) == ledger.artifact_bytes


@pytest.mark.parametrize("name", ["w", "b", "t", "3.bias", "c"])
def test_one_changed_element_fails(tmp_path: Path, name: str) -> None:
    module = network()
    initializers, claims = template(module)
    initializers[name] = initializers[name].clone()
    initializers[name].reshape(-1)[-1] *= 1.1
    ledger = ledger_of(tmp_path / "m.onnx", module, initializers, claims)
    assert not ledger.passed
    assert [entry.name for entry in ledger.initializers if entry.origin == "unexplained"] == [name]


def test_an_initializer_without_a_claim_fails(tmp_path: Path) -> None:
    module = network()
    initializers, claims = template(module)
    ledger = ledger_of(tmp_path / "m.onnx", module, initializers | {"extra": torch.zeros(3)}, claims)
    assert ledger.problems == ("extra: unexplained: the template does not claim it",)


def test_a_claim_without_an_initializer_fails(tmp_path: Path) -> None:
    module = network()
    initializers, claims = template(module)
    del initializers["t"]
    ledger = ledger_of(tmp_path / "m.onnx", module, initializers, claims)
    assert "t: claimed, but not in the artifact" in ledger.problems


def test_a_square_weight_in_the_wrong_orientation_fails(tmp_path: Path) -> None:
    module = network()
    initializers, claims = template(module)
    initializers["t"] = module.state_dict()["3.weight"]
    assert not ledger_of(tmp_path / "m.onnx", module, initializers, claims).passed


def test_an_arrangement_is_evaluated_and_compared(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()
    state = module.state_dict()
    names = tuple(state)
    claim = InitializerClaim(
        "arranged", names, arrange=lambda value: torch.cat([value(name).reshape(-1) for name in names])
    )
    merged = torch.cat([value.reshape(-1) for value in state.values()])
    assert ledger_of(tmp_path / "m.onnx", module, {"all": merged}, {"all": claim}).passed
    assert not ledger_of(tmp_path / "m.onnx", module, {"all": merged.flip(0)}, {"all": claim}).passed


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("identical", {"tensors": ()}),
        ("constant", {"tensors": ("a",)}),
        ("folded", {"tensors": ("a",)}),
        ("transposed", {"tensors": ("a",)}),
        ("arranged", {"tensors": ("a",)}),
    ],
)
def test_a_claim_that_says_too_little_cannot_be_made(kind: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="claim"):
        InitializerClaim(kind, **arguments)
