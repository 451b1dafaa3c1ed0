"""Directories of torch.distributed.checkpoint sent as one zip are read without a class of theirs."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex

from app.conversion.checkpoint import open_checkpoint
from app.domain.errors import AmbiguousCheckpoint, CorruptCheckpoint, RecastError, UnsafeCheckpoint, UnsupportedTensor
from tests.conversion.corpus import weights

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")


def saved(state: dict[str, Any], directory: Path) -> Path:
    dcp.save(state, checkpoint_id=directory, no_dist=True)
    return directory


def zipped(directory: Path, compression: int = zipfile.ZIP_STORED, folder: str = "") -> Path:
    path = directory.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(directory.iterdir()):
            archive.write(file, folder + file.name)
    return path


def changed(directory: Path, change: Callable[[Metadata], None]) -> Path:
    metadata = pickle.loads((directory / ".metadata").read_bytes())
    change(metadata)
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    return directory


@pytest.mark.parametrize("folder", ["", "step-100/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_training_state_is_unwrapped_as_from_one_file(compression: int, folder: str, tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 4)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    state = {"model": weights(), "optimizer": optimizer.state_dict(), "epoch": 3}
    opened = open_checkpoint(zipped(saved(state, tmp_path / "d"), compression, folder))
    assert opened.inspection.format == "distributed"
    assert opened.inspection.nesting == ("model",)
    assert {name: tensor.tolist() for name, tensor in opened.state_dict.items()} == {
        name: tensor.tolist() for name, tensor in weights().items()
    }


def test_a_plain_state_dict_and_several_of_them(tmp_path: Path) -> None:
    assert set(open_checkpoint(zipped(saved(weights(), tmp_path / "d"))).state_dict) == {"0.weight", "0.bias"}
    both = {"model": weights(), "ema": {name: tensor + 1 for name, tensor in weights().items()}}
    with pytest.raises(AmbiguousCheckpoint):
        open_checkpoint(zipped(saved(both, tmp_path / "e")))


def spread(directory: Path, axis: int, *, hole: bool = False) -> Path:
    """A checkpoint of one tensor, written in halves along an axis, as two ranks would."""
    whole = torch.arange(24.0).reshape(4, 6)
    halves = whole.chunk(2, axis)
    saved({f"half{rank}": half.contiguous() for rank, half in enumerate(halves)}, directory)

    def join(metadata: Metadata) -> None:
        described = metadata.state_dict_metadata.pop("half1")
        entry = metadata.state_dict_metadata.pop("half0")
        offsets = [torch.Size([0, 0]), torch.Size([halves[0].shape[0], 0] if axis == 0 else [0, halves[0].shape[1]])]
        if hole:
            offsets[1] = torch.Size([offset + 1 if offset else 0 for offset in offsets[1]])
        entry.size = whole.shape
        entry.chunks = [ChunkStorageMetadata(offset, half.shape) for offset, half in zip(offsets, halves, strict=True)]
        assert described.size == halves[1].shape
        metadata.state_dict_metadata = {"w": entry}
        metadata.planner_data = {"w": ("w",)}
        metadata.storage_data = {
            MetadataIndex("w", offsets[int(index.fqn[-1])]): info for index, info in metadata.storage_data.items()
        }

    return changed(directory, join)


@pytest.mark.parametrize("axis", [0, 1])
def test_parts_of_a_tensor_are_put_together(axis: int, tmp_path: Path) -> None:
    opened = open_checkpoint(zipped(spread(tmp_path / "d", axis)))
    assert opened.state_dict["w"].equal(torch.arange(24.0).reshape(4, 6))


def test_parts_that_leave_a_hole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match="make up the whole"):
        open_checkpoint(zipped(spread(tmp_path / "d", 0, hole=True)))


def _resize(metadata: Metadata) -> None:
    metadata.state_dict_metadata["0.weight"].size = torch.Size([400, 300])


def _lose(metadata: Metadata) -> None:
    metadata.storage_data = {}


def _lead_out(metadata: Metadata) -> None:
    for info in metadata.storage_data.values():
        info.relative_path = "../../../etc/passwd"


def _reach_beyond(metadata: Metadata) -> None:
    for info in metadata.storage_data.values():
        info.length = 1 << 40


def _say_nothing(metadata: Metadata) -> None:
    metadata.state_dict_metadata = None  # type: ignore[assignment]


def _compress(metadata: Metadata) -> None:
    for info in metadata.storage_data.values():
        info.transform_descriptors = ["zstd"]


@pytest.mark.parametrize("change", [_resize, _lose, _lead_out, _reach_beyond, _say_nothing, _compress])
def test_metadata_that_lies_is_refused(change: Callable[[Metadata], None], tmp_path: Path) -> None:
    with pytest.raises((CorruptCheckpoint, UnsupportedTensor)):
        open_checkpoint(zipped(changed(saved(weights(), tmp_path / "d"), change)))


class Executes:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.witness)!r}, 'w').close()",)


def test_metadata_that_calls_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    directory = saved(weights(), tmp_path / "d")
    (directory / ".metadata").write_bytes(pickle.dumps(Executes(tmp_path / "witness")))
    with pytest.raises(UnsafeCheckpoint):
        open_checkpoint(zipped(directory))
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}.", b"\x80\x02N."])
def test_metadata_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    directory = saved(weights(), tmp_path / "d")
    (directory / ".metadata").write_bytes(content)
    with pytest.raises(RecastError) as refused:
        open_checkpoint(zipped(directory))
    assert refused.value.status == 422


def test_one_file_of_a_directory_says_what_to_send(tmp_path: Path) -> None:
    directory = saved(weights(), tmp_path / "d")
    with pytest.raises(CorruptCheckpoint) as refused:
        open_checkpoint(directory / "__0_0.distcp")
    assert "zip of the directory" in str(refused.value.told_hint)
