"""What becomes of each uploaded tensor, by the ledger's own words."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from app.conversion.verification.ledger.ledger import ledger_of
from app.domain.architecture import InputSpec, Signature
from app.domain.checkpoint import LoadReport
from app.domain.conversion import TARGET_NAMES
from app.domain.report import Ledger
from app.targets.artifact import MalformedFile
from app.targets.claims import Claim
from app.targets.reader import reader_of
from tests.conversion.verification.ledger.cases import WAYS, Exports, build, upload

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


def claims_of(path: Path, module: nn.Module) -> dict[str, Claim]:
    """That every initializer holds the tensor of its name, and every other one is a constant as it is."""
    stored = {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer}
    keys = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    return {
        name: Claim("identical", (name,), lambda value_of, key=name: value_of(key))
        if name in keys
        else Claim("constant", sha256=sha256(data).hexdigest())
        for name, data in stored.items()
    }


def check(
    path: Path, module: nn.Module, uploaded: dict[str, Tensor] | None = None, load: LoadReport = STRICT
) -> Ledger:
    return ledger_of(
        reader_of("onnx").tensors(path),
        claims_of(path, module),
        uploaded=upload(module) if uploaded is None else uploaded,
        load=load,
        module=module.eval(),
        signature=VECTOR,
    )


@pytest.mark.parametrize("network", ["convolutions", "recurrent", "transformer", "standardised"])
@pytest.mark.parametrize("way", WAYS)
def test_bytes_add_up_both_ways(network: str, way: str, exported: Exported) -> None:
    exports = exported(network)
    uploaded = upload(exports.module)
    ledger = exports.ledger(way, network)
    assert ledger.problems == ()
    assert [entry.tensor for entry in ledger.entries] == list(uploaded)
    assert ledger.uploaded_bytes == sum(value.nbytes for value in uploaded.values())
    assert sum(ledger.bytes_by_class.values()) == ledger.uploaded_bytes
    assert sum(ledger.bytes_by_origin.values()) == ledger.artifact_bytes
    names = {entry.name for entry in ledger.initializers}
    assert all(set(entry.initializers) <= names for entry in ledger.entries)


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


class Threshold(nn.Module):
    """Compares with one tensor, and guards another against NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.limit, self.guarded = nn.Parameter(torch.full((4,), 50.0)), nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > self.limit, 0.0, x) + self.guarded.nan_to_num(0.0, 0.0, 0.0)


class Cells(nn.Module):
    """An LSTM, which keeps its tensors a second time in a list, and a table that is read by place."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.spare = nn.LSTM(4, 3), nn.LSTM(4, 3)
        self.register_buffer("order", torch.tensor([2, 0, 1]))

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, self.order]


@pytest.mark.parametrize(("module", "unused"), [(Threshold(), set()), (Cells(), {"spare"})])
def test_a_tensor_is_unused_only_where_no_value_of_it_shows(
    module: nn.Module, unused: set[str], tmp_path: Path
) -> None:
    before = upload(module)
    ledger = check(write(tmp_path / "m.onnx", {}), module)
    assert {name for name, found in classes(ledger).items() if found == "unused"} == {
        name for name in before if name.split(".")[0] in unused
    }
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Aliased(nn.Module):
    """Reads its weight through a view that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))
        self.views = [self.weight.detach()[1:]]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.views[0].sum()


def test_a_tensor_whose_memory_is_read_by_another_way_is_not_called_unused(tmp_path: Path) -> None:
    assert classes(check(write(tmp_path / "m.onnx", {}), Aliased())) == {"weight": "unaccounted"}


class Drawing(nn.Module):
    """Draws numbers beside its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.used + torch.rand_like(x)


def test_influence_is_told_from_chance(tmp_path: Path) -> None:
    ledger = check(write(tmp_path / "m.onnx", {}), Drawing())
    assert classes(ledger) == {"used": "unaccounted", "spare": "unused"}


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
    ledger = ledger_of(
        reader_of("onnx").tensors(path), claims_of(path, module), uploaded=state, load=STRICT, module=module.eval()
    )
    assert classes(ledger)["spare.weight"] == "unaccounted"


def test_a_tensor_that_nothing_claims_fails(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    path = write(tmp_path / "m.onnx", upload(module) | {"table": torch.rand(6)})
    claims = claims_of(path, module)
    del claims["table"]
    ledger = ledger_of(
        reader_of("onnx").tensors(path), claims, uploaded=upload(module), load=STRICT, module=module, signature=VECTOR
    )
    assert [entry.name for entry in ledger.initializers if entry.origin == "unexplained"] == ["table"]
    assert not ledger.passed


def test_no_claim_makes_a_constant_of_a_weight(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    path = write(tmp_path / "m.onnx", upload(module) | {"bias": torch.zeros(3)})
    constant = Claim("constant", sha256=sha256(bytes(12)).hexdigest())
    claims = claims_of(path, module) | {"bias": constant}
    ledger = ledger_of(
        reader_of("onnx").tensors(path), claims, uploaded=upload(module), load=STRICT, module=module, signature=VECTOR
    )
    assert "bias: unexplained: a constant has the name of bias, but not its bytes" in ledger.problems
    assert classes(ledger)["bias"] == "unaccounted"


# To the TorchScript-based exporter, buffers outside of the state dict have no names: there the structure's hash tells.
@pytest.mark.parametrize("way", [way for way in WAYS if way != "torchscript"])
def test_a_buffer_of_another_architecture_fails(way: str, exported: Exported) -> None:
    module = build("transformer")
    module.position[0, 2, 3] += 0.5
    assert not exported("transformer").ledger(way, "transformer", module=module).passed


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
    for target in TARGET_NAMES:
        with pytest.raises(MalformedFile):
            reader_of(target).tensors(path)
