"""What becomes of each uploaded tensor, by the ledger's own words."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from app.conversion.verification.artifact.protobuf_wire import MalformedFile
from app.conversion.verification.ledger.ledger import onnx_ledger, torchscript_ledger
from app.domain.architecture import InputSpec, Signature
from app.domain.checkpoint import LoadReport
from app.domain.report import Ledger
from tests.conversion.verification.ledger_cases import Exports, build, signature_of, upload

Exported = Callable[[str], Exports]
STRICT = LoadReport(strict=True)
VECTOR = Signature(inputs=(InputSpec(name="x", shape=("batch", 4)),))


def write(path: Path, initializers: dict[str, Tensor], nodes: list[onnx.NodeProto] | None = None) -> Path:
    stored = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in initializers.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    onnx.save(helper.make_model(helper.make_graph(nodes or [], "g", ends[:1], ends[1:], stored)), path)
    return path


def classes(ledger: Ledger) -> dict[str, str]:
    return {entry.tensor: entry.ledger_class for entry in ledger.entries}


def check(
    path: Path, module: nn.Module, uploaded: dict[str, Tensor] | None = None, load: LoadReport = STRICT
) -> Ledger:
    uploaded = upload(module) if uploaded is None else uploaded
    return onnx_ledger(path, uploaded, load, module.eval(), None, signature=VECTOR)


@pytest.mark.parametrize("network", ["convolutions", "recurrent", "transformer"])
@pytest.mark.parametrize("way", ["dynamo", "dynamo_optimised", "torchscript_folded", "frozen_script"])
def test_bytes_add_up_both_ways(network: str, way: str, exported: Exported) -> None:
    exports = exported(network)
    uploaded = upload(exports.module)
    arguments = (exports.paths[way], uploaded, STRICT, exports.module)
    if way.startswith("frozen"):
        ledger = torchscript_ledger(*arguments, signature=signature_of(network))
    else:
        ledger = onnx_ledger(*arguments, None, signature=signature_of(network))
    assert ledger.problems == ()
    assert [entry.tensor for entry in ledger.entries] == list(uploaded)
    assert ledger.uploaded_bytes == sum(value.nbytes for value in uploaded.values())
    assert sum(ledger.bytes_by_class.values()) == ledger.uploaded_bytes
    assert sum(ledger.bytes_by_origin.values()) == ledger.artifact_bytes
    names = {entry.name for entry in ledger.initializers}
    assert all(set(entry.initializers) <= names for entry in ledger.entries)


def test_folds_name_their_sources(exported: Exported) -> None:
    exports = exported("convolutions")
    path = exports.paths["torchscript_folded"]
    ledger = onnx_ledger(
        path, upload(exports.module), STRICT, exports.module, None, signature=signature_of("convolutions")
    )
    folds = {frozenset(entry.sources) for entry in ledger.initializers if entry.origin == "fold"}
    assert {"stem.0.weight", "stem.1.weight", "stem.1.running_var"} in folds
    assert {"twin.0.bias", *(f"twin.1.{key}" for key in ("weight", "bias", "running_mean", "running_var"))} in folds


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_upload_of_another_precision_is_cast(dtype: torch.dtype, tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    uploaded = {name: value.to(dtype) for name, value in upload(module).items()}
    module.load_state_dict(uploaded)
    ledger = check(write(tmp_path / "m.onnx", dict(module.state_dict())), module, uploaded)
    assert ledger.problems == ()
    assert classes(ledger) == {"weight": "cast", "bias": "cast"}
    assert str(dtype).removeprefix("torch.") in ledger.entries[0].detail


def test_weights_rounded_on_the_way_are_no_cast(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    rounded = {name: value.half().float() for name, value in module.state_dict().items()}
    assert not check(write(tmp_path / "m.onnx", rounded), module).passed
    halves = {name: value.half() for name, value in module.state_dict().items()}
    assert not check(write(tmp_path / "m.onnx", halves), module).passed


def test_a_module_that_does_not_hold_the_upload_fails(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    uploaded = upload(module)
    path = write(tmp_path / "m.onnx", uploaded)
    with torch.no_grad():
        module.bias[0] += 1
    assert check(path, module, uploaded).problems == ("bias: the loaded module holds other values than the upload",)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("kept", ["first.weight", "second.weight"])
def test_tied_tensors_share_one_initializer(kept: str, tmp_path: Path) -> None:
    module = Tied()
    other = {"first.weight": "second.weight", "second.weight": "first.weight"}[kept]
    ledger = check(write(tmp_path / "m.onnx", {kept: module.first.weight}), module)
    assert ledger.problems == ()
    assert classes(ledger) == {kept: "identical", other: "tied_to"}


def test_a_tied_architecture_cannot_carry_two_different_tensors(tmp_path: Path) -> None:
    module = Tied()
    uploaded = upload(module) | {"first.weight": torch.zeros(4, 4)}
    ledger = check(write(tmp_path / "m.onnx", {"second.weight": module.first.weight}), module, uploaded)
    assert not ledger.passed
    assert classes(ledger)["first.weight"] == "unaccounted"


def test_a_missing_key_of_a_tied_pair_stands_for_the_other(tmp_path: Path) -> None:
    module = Tied()
    uploaded = {"first.weight": module.first.weight.detach().clone()}
    load = LoadReport(strict=False, missing_keys=("second.weight",))
    ledger = check(write(tmp_path / "m.onnx", {"second.weight": module.first.weight}), module, uploaded, load)
    assert ledger.problems == ()
    assert classes(ledger) == {"first.weight": "identical"}


def test_without_strict_missing_and_ignored_tensors_are_told_apart(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    uploaded = {"weight": module.weight.detach().clone(), "extra": torch.ones(5)}
    load = LoadReport(strict=False, missing_keys=("bias",), unexpected_keys=("extra",), ignored_keys=("extra",))
    path = write(tmp_path / "m.onnx", dict(module.state_dict()))
    ledger = check(path, module, uploaded, load)
    assert ledger.problems == ()
    assert classes(ledger) == {"weight": "identical", "extra": "ignored"}
    origins = {entry.name: entry.origin for entry in ledger.initializers}
    assert origins == {"weight": "tensor", "bias": "constant"}
    with torch.no_grad():
        module.bias += 1
    assert not check(path, module, uploaded, load).passed


def test_a_tensor_that_the_architecture_lacks_is_unaccounted_when_not_ignored(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    ledger = check(write(tmp_path / "m.onnx", upload(module)), module, upload(module) | {"extra": torch.ones(5)})
    assert classes(ledger)["extra"] == "unaccounted"
    assert not ledger.passed


class Pooled(nn.Module):
    """Computes a pooled value and throws it away, as an encoder does whose pooler output nobody asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.pooler, self.spare = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        self.pooler(x)
        return x


def test_tensors_without_influence_on_outputs_are_unused(tmp_path: Path) -> None:
    module = Pooled()
    state = upload(module)
    kept = {name: state[name] for name in ("body.weight", "body.bias")}
    ledger = check(write(tmp_path / "m.onnx", kept), module)
    assert ledger.problems == ()
    unused = {name for name, found in classes(ledger).items() if found == "unused"}
    assert unused == {"pooler.weight", "pooler.bias", "spare.weight", "spare.bias"}


class Writing(nn.Module):
    """Writes through views: what a view receives, its base has too."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift, self.late = (nn.Parameter(torch.rand(2)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        buffer = torch.zeros(x.shape[0], 4)
        view = buffer[:, :2]
        early = buffer[:, 1:]
        view.copy_(x[:, :2] * self.scale)
        buffer[:, 2:] = x[:, 2:] + self.shift
        view += self.late
        return early * 2


def test_what_is_written_through_a_view_counts_as_used(tmp_path: Path) -> None:
    ledger = check(write(tmp_path / "m.onnx", {}), Writing())
    assert set(classes(ledger).values()) == {"unaccounted"}


class OnlyLarge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rare = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.rare if bool(x.abs().max() > 6) else x


def test_a_tensor_behind_a_branch_is_not_called_unused(tmp_path: Path) -> None:
    ledger = check(write(tmp_path / "m.onnx", {}), OnlyLarge())
    assert classes(ledger) == {"rare": "unaccounted"}


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.spare = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no forward today")


def test_a_forward_that_cannot_be_followed_proves_nothing_unused(tmp_path: Path) -> None:
    module = Failing()
    ledger = check(write(tmp_path / "m.onnx", {"weight": module.weight}), module)
    assert classes(ledger) == {"weight": "identical", "spare": "unaccounted"}
    assert "no forward today" in ledger.problems[0]


def test_without_a_signature_nothing_is_called_unused(tmp_path: Path) -> None:
    module = Pooled()
    state = upload(module)
    path = write(tmp_path / "m.onnx", {name: state[name] for name in ("body.weight", "body.bias")})
    ledger = onnx_ledger(path, state, STRICT, module.eval(), None)
    assert classes(ledger)["spare.weight"] == "unaccounted"


class Stack(nn.Module):
    """Layers of one shape, two of them with equal biases."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)])
        with torch.no_grad():
            self.layers[1].bias.copy_(self.layers[0].bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def chain(weights: tuple[str, ...], biases: tuple[str, ...]) -> list[onnx.NodeProto]:
    """Gemm nodes one after the other, as the TorchScript-based exporter writes linear layers."""
    values = ["x", *[f"h{place}" for place in range(len(weights) - 1)], "y"]
    return [
        helper.make_node("Gemm", [values[place], weight, bias], [values[place + 1]], transB=1)
        for place, (weight, bias) in enumerate(zip(weights, biases, strict=True))
    ]


def renamed(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    found = {f"w{place}": state[f"layers.{place}.weight"] for place in range(3)}
    return found | {"b0": state["layers.0.bias"], "b2": state["layers.2.bias"]}


def test_equal_tensors_may_be_stored_once(tmp_path: Path) -> None:
    module = Stack()
    path = write(tmp_path / "m.onnx", renamed(module), chain(("w0", "w1", "w2"), ("b0", "b0", "b2")))
    ledger = check(path, module)
    assert ledger.problems == ()
    assert set(classes(ledger).values()) == {"identical"}


@pytest.mark.parametrize(
    ("weights", "biases"),
    [
        (("w1", "w0", "w2"), ("b0", "b0", "b2")),
        (("w0", "w2", "w1"), ("b0", "b0", "b2")),
        (("w0", "w1", "w2"), ("b2", "b0", "b0")),
        (("w0", "w1", "w2"), ("b0", "b2", "b2")),
    ],
)
def test_renamed_tensors_used_out_of_order_fail(
    weights: tuple[str, ...], biases: tuple[str, ...], tmp_path: Path
) -> None:
    module = Stack()
    assert not check(write(tmp_path / "m.onnx", renamed(module), chain(weights, biases)), module).passed


def test_one_of_two_equal_tensors_zeroed_fails(tmp_path: Path) -> None:
    module = Stack()
    initializers = renamed(module) | {"zero": torch.zeros(4)}
    path = write(tmp_path / "m.onnx", initializers, chain(("w0", "w1", "w2"), ("b0", "zero", "b2")))
    assert not check(path, module).passed


@pytest.mark.parametrize(("second", "passes"), [("w", True), ("zero", False)])
def test_every_use_of_a_tied_tensor_counts(second: str, passes: bool, tmp_path: Path) -> None:
    module = Tied()
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", second], ["y"]),
    ]
    initializers = {"w": module.first.weight.t().contiguous(), "zero": torch.zeros(4, 4)}
    assert check(write(tmp_path / "m.onnx", initializers, nodes), module).passed == passes


class Remembering(nn.Module):
    """Keeps what it made of its weights until it changes mode, and a constant outside of parameters and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.rand(3, 4))
        self.mean = torch.rand(4)
        self.kept: Tensor | None = None

    def train(self, mode: bool = True) -> nn.Module:
        self.kept = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = self.table[torch.tensor([2, 0])].sum(0)
        return (x - self.mean) * self.kept


def test_what_a_module_remembers_of_its_weights_is_traced_to_them(tmp_path: Path) -> None:
    module = Remembering().eval()
    module(torch.rand(2, 4))
    nodes = [helper.make_node("Sub", ["x", "m"], ["h"]), helper.make_node("Mul", ["h", "k"], ["y"])]
    path = write(tmp_path / "m.onnx", {"m": module.mean, "k": module.kept}, nodes)
    ledger = check(path, module)
    assert ledger.problems == ()
    assert classes(ledger) == {"table": "folded"}
    assert {entry.name: entry.origin for entry in ledger.initializers} == {"m": "constant", "k": "fold"}
    with torch.no_grad():
        module.table += 1
    assert not check(path, module).passed


def test_a_renamed_square_weight_transposed_fails(tmp_path: Path) -> None:
    module = Stack()
    initializers = renamed(module)
    initializers["w1"] = initializers["w1"].t().contiguous()
    path = write(tmp_path / "m.onnx", initializers, chain(("w0", "w1", "w2"), ("b0", "b0", "b2")))
    ledger = check(path, module)
    assert ledger.problems == ("w1 holds layers.1.weight, but transposed the wrong way for its operator",)


def test_a_number_table_that_nothing_explains_fails(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    ledger = check(write(tmp_path / "m.onnx", upload(module) | {"table": torch.rand(6)}), module)
    assert [entry.name for entry in ledger.initializers if entry.origin == "unexplained"] == ["table"]
    assert not ledger.passed


@pytest.mark.parametrize(
    "constant",
    [torch.tensor(0.5), torch.zeros(3, 3), torch.arange(7), torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])],
    ids=["scalar", "fill", "indices", "mask"],
)
def test_constants_that_cannot_be_weights_are_explained_by_rule(constant: Tensor, tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    ledger = check(write(tmp_path / "m.onnx", upload(module) | {"c": constant}), module)
    assert ledger.problems == ()
    assert {entry.name: entry.origin for entry in ledger.initializers}["c"] == "constant"


def test_no_rule_excuses_a_constant_under_a_weights_name(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    ledger = check(write(tmp_path / "m.onnx", upload(module) | {"bias": torch.zeros(3)}), module)
    assert "bias: unexplained: it has this key's name, but other bytes" in ledger.problems


@pytest.mark.parametrize("way", ["dynamo", "dynamo_optimised", "torchscript_folded", "trace", "frozen_trace"])
def test_a_buffer_of_another_architecture_fails(way: str, exported: Exported) -> None:
    exports = exported("transformer")
    module = build("transformer")
    module.position[0, 2, 3] += 0.5
    arguments = (exports.paths[way], upload(module), STRICT, module)
    if exports.paths[way].suffix == ".onnx":
        ledger = onnx_ledger(*arguments, None, signature=signature_of("transformer"))
    else:
        ledger = torchscript_ledger(*arguments, signature=signature_of("transformer"))
    assert not ledger.passed


def test_non_finite_weights_are_compared_bit_by_bit(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    with torch.no_grad():
        module.weight[0, 0], module.weight[1, 1], module.bias[0] = torch.nan, -torch.inf, -0.0
    assert check(write(tmp_path / "m.onnx", upload(module)), module).passed
    changed = upload(module)
    changed["bias"][0] = 0.0
    assert not check(write(tmp_path / "m.onnx", changed), module).passed


def test_an_empty_upload_and_an_empty_artifact_agree(tmp_path: Path) -> None:
    ledger = check(write(tmp_path / "m.onnx", {}), nn.Identity())
    assert ledger.passed
    assert ledger.uploaded_bytes == ledger.artifact_bytes == 0


def test_a_damaged_artifact_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"not a model at all")
    with pytest.raises(MalformedFile):
        check(path, nn.Linear(4, 3))
    with pytest.raises(MalformedFile):
        torchscript_ledger(path, {}, STRICT, nn.Identity())
