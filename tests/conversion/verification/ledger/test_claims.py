"""A template's claims are recomputed from the upload, and whatever is not as claimed fails."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from app.conversion.verification.ledger.ledger import ledger_of
from app.domain.checkpoint import LoadReport
from app.domain.report import Ledger
from app.targets.claims import Claim, ValueOf
from app.targets.reader import reader_of


def network() -> nn.Sequential:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 2, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 4)).eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.1)
    return module


def judged(path: Path, module: nn.Module, initializers: dict[str, Tensor], claims: dict[str, Claim]) -> Ledger:
    stored = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in initializers.items()]
    graph = helper.make_graph([], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], stored)
    onnx.save(helper.make_model(graph), path)
    load = LoadReport(strict=True)
    return ledger_of(
        reader_of("onnx").tensors(path), claims, uploaded=dict(module.state_dict()), load=load, module=module
    )


def template(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Claim]]:
    """What a template with a transposed, a reshaped and two merged tensors writes and claims."""
    state = module.state_dict()
    merged = ("1.running_mean", "1.running_var")
    initializers = {
        "0.weight": state["0.weight"],
        "1.weight": state["1.weight"],
        "1.bias": state["1.bias"],
        "m": torch.cat([state[name] for name in merged]),
        "t": state["3.weight"].t().contiguous(),
        "3.bias": state["3.bias"].reshape(1, 4),
        "c": torch.tensor([3.0, 4.0]),
    }
    claims = {name: Claim("identical", (name,), itself(name)) for name in ("0.weight", "1.weight", "1.bias")}
    claims |= {
        "m": Claim("arranged", merged, lambda value_of: torch.cat([value_of(name) for name in merged])),
        "t": Claim("transposed", ("3.weight",), lambda value_of: value_of("3.weight").t()),
        "3.bias": Claim("reshaped", ("3.bias",), lambda value_of: value_of("3.bias").reshape(1, 4)),
        "c": Claim("constant", sha256=hashlib.sha256(np.array([3, 4], np.float32).tobytes()).hexdigest()),
    }
    return initializers, claims


def itself(name: str) -> Callable[[ValueOf], Tensor]:
    return lambda value_of: value_of(name)


def test_claims_that_hold_account_for_every_tensor(tmp_path: Path) -> None:
    module = network()
    ledger = judged(tmp_path / "m.onnx", module, *template(module))
    assert ledger.problems == ()
    assert {entry.tensor: entry.ledger_class for entry in ledger.entries} == {
        "0.weight": "identical",
        "1.weight": "identical",
        "1.bias": "identical",
        "1.running_mean": "folded",
        "1.running_var": "folded",
        "1.num_batches_tracked": "unused",
        "3.weight": "transposed",
        "3.bias": "identical",
    }
    assert sum(ledger.bytes_by_class.values()) == ledger.uploaded_bytes
    assert sum(ledger.bytes_by_origin.values()) == ledger.artifact_bytes


@pytest.mark.parametrize("name", ["0.weight", "1.bias", "m", "t", "3.bias", "c"])
def test_one_changed_element_fails(tmp_path: Path, name: str) -> None:
    module = network()
    initializers, claims = template(module)
    initializers[name] = initializers[name].clone()
    initializers[name].reshape(-1)[-1] *= 1.1
    ledger = judged(tmp_path / "m.onnx", module, initializers, claims)
    assert not ledger.passed
    assert [entry.name for entry in ledger.initializers if entry.origin == "unexplained"] == [name]


def test_an_initializer_without_a_claim_fails(tmp_path: Path) -> None:
    module = network()
    initializers, claims = template(module)
    ledger = judged(tmp_path / "m.onnx", module, initializers | {"extra": torch.zeros(3)}, claims)
    assert ledger.problems == ("extra: unexplained: the template does not claim it",)


def test_a_claim_without_an_initializer_fails(tmp_path: Path) -> None:
    module = network()
    initializers, claims = template(module)
    del initializers["t"]
    ledger = judged(tmp_path / "m.onnx", module, initializers, claims)
    assert "t: claimed, but not in the artifact" in ledger.problems


def test_a_square_weight_in_the_wrong_orientation_fails(tmp_path: Path) -> None:
    module = network()
    initializers, claims = template(module)
    initializers["t"] = module.state_dict()["3.weight"]
    assert not judged(tmp_path / "m.onnx", module, initializers, claims).passed


def test_a_claim_of_tensors_that_nobody_has_fails(tmp_path: Path) -> None:
    module = network()
    initializers, claims = template(module)
    claims["t"] = Claim("transposed", ("9.weight",), lambda value_of: value_of("9.weight").t())
    ledger = judged(tmp_path / "m.onnx", module, initializers, claims)
    assert any("neither upload nor architecture has" in problem for problem in ledger.problems)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("identical", {"tensors": ()}),
        ("identical", {"tensors": ("a",)}),
        ("identical", {"tensors": ("a", "b"), "evaluate": itself("a")}),
        ("constant", {"tensors": ("a",), "sha256": "0" * 64}),
        ("constant", {}),
    ],
)
def test_a_claim_that_says_too_little_cannot_be_made(kind: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"claim|constant"):
        Claim(kind, **arguments)
