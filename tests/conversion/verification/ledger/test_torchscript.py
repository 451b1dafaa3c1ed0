"""The reader of TorchScript archives, on what torch writes and on what it never would."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from app.conversion.verification.ledger.ledger import ledger_of
from app.domain.architecture import InputSpec, Signature
from app.domain.checkpoint import LoadReport
from app.domain.report import Ledger
from app.targets.artifact import MalformedFile
from app.targets.claims import Claim
from app.targets.reader import reader_of
from app.targets.torchscript.reading.tensors import read_torchscript
from tests.conversion.verification.ledger.cases import upload

STRICT = LoadReport(strict=True)
VECTOR = Signature(inputs=(InputSpec(name="x", shape=("batch", 4)),))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).eval()


def judged(path: Path, module: nn.Module) -> Ledger:
    """The ledger under the claim that every attribute holds the tensor of its path."""
    claims = {name: Claim("identical", (name,), lambda value_of, key=name: value_of(key)) for name in upload(module)}
    return ledger_of(
        reader_of("torchscript").tensors(path),
        claims,
        uploaded=upload(module),
        load=STRICT,
        module=module,
        signature=VECTOR,
    )


def save(module: torch.jit.ScriptModule, path: Path) -> Path:
    module.save(str(path))
    return path


def rewrite(path: Path, change: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> None:
    """Write the archive again with records replaced, by their names below the top folder."""
    with zipfile.ZipFile(path) as source:
        records = {record.filename: source.read(record) for record in source.infolist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, data in records.items():
            target.writestr(name, change.get(name.split("/", 1)[1], data), method)


def test_tensors_are_those_that_torch_loads(tmp_path: Path) -> None:
    module = network()
    path = save(torch.jit.script(module), tmp_path / "m.pt")
    found = {stored.name: stored.data.tobytes() for stored in read_torchscript(path)}
    loaded = torch.jit.load(path)
    assert found == {name: value.numpy().tobytes() for name, value in loaded.state_dict().items()}


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        base = torch.rand(6, 4)
        self.transposed = nn.Parameter(base.t())
        self.strided = nn.Parameter(base[::2, 1])
        self.scalar = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.transposed).sum() + self.strided.sum() * self.scalar


def test_views_are_read_in_row_major_order(tmp_path: Path) -> None:
    module = Views().eval()
    path = save(torch.jit.script(module), tmp_path / "m.pt")
    found = {stored.name: stored.data.tobytes() for stored in read_torchscript(path)}
    assert found["transposed"] == module.transposed.detach().contiguous().numpy().tobytes()
    assert found["strided"] == module.strided.detach().contiguous().numpy().tobytes()
    assert judged(path, module).passed


def test_a_changed_parameter_is_found_by_its_name(tmp_path: Path) -> None:
    module = network()
    path = save(torch.jit.trace(module, torch.rand(2, 4)), tmp_path / "m.pt")
    uploaded = upload(module)
    with torch.no_grad():
        module[2].bias[1] *= 1.1
    ledger = judged(path, module)
    assert "2.bias: unexplained: its bytes are not those of 2.bias, identical" in ledger.problems
    assert len(uploaded) == 4


class Tied(nn.Module):
    """One parameter under two paths, and a list of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.more = nn.ParameterList([nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x) * self.more[0]) + self.more[1]


def test_a_shared_tensor_is_held_to_the_claim_of_each_of_its_paths(tmp_path: Path) -> None:
    module = Tied().eval()
    path = save(torch.jit.trace(module, torch.rand(2, 4)), tmp_path / "m.pt")
    assert judged(path, module).problems == ()
    apart = Tied().eval()
    apart.load_state_dict(module.state_dict())
    apart.second.weight = nn.Parameter(apart.second.weight.detach() + 1)
    assert not judged(path, apart).passed


def test_weights_that_optimising_leaves_out_of_the_file_are_missed(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    optimised = torch.jit.optimize_for_inference(torch.jit.trace(module, torch.rand(1, 3, 8, 8)))
    ledger = judged(save(optimised, tmp_path / "m.pt"), module)
    assert {entry.ledger_class for entry in ledger.entries} == {"unaccounted"}


def test_a_storage_that_nothing_refers_to_is_unexplained(tmp_path: Path) -> None:
    module = network()
    path = save(torch.jit.script(module), tmp_path / "m.pt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0].split("/")[0] + "/data/99", torch.rand(8).numpy().tobytes())
    assert not judged(path, module).passed


class Gadget:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


def test_a_gadget_in_the_object_tree_does_not_run(tmp_path: Path) -> None:
    path = save(torch.jit.script(network()), tmp_path / "m.pt")
    rewrite(path, {"data.pkl": pickle.dumps({"0": Gadget(tmp_path / "touched")}, protocol=2)})
    with pytest.raises(MalformedFile):
        read_torchscript(path)
    assert not (tmp_path / "touched").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def compress(path: Path) -> None:
    rewrite(path, {}, method=zipfile.ZIP_DEFLATED)


def shorten(path: Path) -> None:
    rewrite(path, {"data/0": b"\x00" * 8})


def empty_tree(path: Path) -> None:
    rewrite(path, {"data.pkl": b""})


def nest(path: Path) -> None:
    value: object = {}
    for _ in range(300):
        value = {"a": value}
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol=2).dump(value)
    rewrite(path, {"data.pkl": buffer.getvalue()})


@pytest.mark.parametrize("damage", [cut, compress, shorten, empty_tree, nest])
def test_damaged_archives_are_refused(damage: object, tmp_path: Path) -> None:
    path = save(torch.jit.script(network()), tmp_path / "m.pt")
    damage(path)
    with pytest.raises(MalformedFile):
        read_torchscript(path)
