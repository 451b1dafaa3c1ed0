"""Weights out of programs: TorchScript archives and torch.export's, whose code never runs."""

import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.conversion.checkpoint import open_checkpoint
from app.domain.errors import AlreadyTorchScript, CorruptCheckpoint, UnsafeCheckpoint, UnsupportedTensor


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.norm = nn.BatchNorm1d(4)
        self.first = self.layers[0].weight
        self.scale = 3

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.norm(layer(x)) * self.scale
        return x


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return Inner().eval()


def scripted(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(str(path))
    return path


def traced(module: nn.Module, path: Path) -> Path:
    torch.jit.trace(module, torch.ones(2, 4)).save(str(path))
    return path


def exported(module: nn.Module, path: Path) -> Path:
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),)), path)
    return path


@pytest.mark.parametrize("save", [scripted, traced, exported])
def test_the_state_dict_comes_out_under_its_own_names(save, module: nn.Module, tmp_path: Path) -> None:
    opened = open_checkpoint(save(module, tmp_path / "model.pt2"))
    assert opened.inspection.format == ("pt2" if save is exported else "torchscript")
    state = module.state_dict()
    assert opened.state_dict.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(opened.state_dict[key], value), key


def test_a_frozen_module_has_no_names_for_its_weights(module: nn.Module, tmp_path: Path) -> None:
    torch.jit.freeze(torch.jit.script(module)).save(str(tmp_path / "frozen.pt"))
    with pytest.raises(AlreadyTorchScript):
        open_checkpoint(tmp_path / "frozen.pt")


def rewritten(path: Path, changes: dict[str, bytes]) -> Path:
    """The archive with other records in the place of some."""
    other = path.with_suffix(".other")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for info in source.infolist():
            name = info.filename.partition("/")[2]
            target.writestr(info.filename, changes.get(name, source.read(info)))
    return other


def test_a_pickle_that_names_something_else_is_unsafe_and_runs_nothing(module: nn.Module, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    pickled = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    with pytest.raises(UnsafeCheckpoint):
        open_checkpoint(rewritten(scripted(module, tmp_path / "model.pt"), {"data.pkl": pickled}))
    assert not mark.exists()


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"[]",
        b'{"config": {"w": {}}}',
        b'{"config": {"w": {"use_pickle": false, "path_name": "../../x", "tensor_meta": {"dtype": 7}}}}',
        b'{"config": ' + b"[" * 100_000,
    ],
)
def test_a_table_that_is_none_is_corrupt(table: bytes, module: nn.Module, tmp_path: Path) -> None:
    changed = {"data/weights/model_weights_config.json": table}
    with pytest.raises(CorruptCheckpoint):
        open_checkpoint(rewritten(exported(module, tmp_path / "model.pt2"), changed))


def test_a_pickled_weight_is_not_read(module: nn.Module, tmp_path: Path) -> None:
    path = exported(module, tmp_path / "model.pt2")
    name = "data/weights/model_weights_config.json"
    with zipfile.ZipFile(path) as archive:
        table = archive.read(f"model/{name}")
    changed = {name: table.replace(b'"use_pickle": false', b'"use_pickle": true', 1)}
    with pytest.raises(UnsupportedTensor):
        open_checkpoint(rewritten(path, changed))
