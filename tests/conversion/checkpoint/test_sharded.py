"""Sharded checkpoints sent as one zip: read where they lie, refused where index and files disagree."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from app.conversion.checkpoint import open_checkpoint
from app.domain.errors import CorruptCheckpoint, PayloadTooLarge, RecastError, UnsafeCheckpoint
from tests.conversion.corpus import weights
from tests.hostile.opcodes import archive, call, name, program, text

FIRST, SECOND = "model-00001-of-00002", "model-00002-of-00002"
MAP = {"0.weight": FIRST, "0.bias": SECOND}


def torch_saved(state: Mapping[str, torch.Tensor]) -> bytes:
    stream = io.BytesIO()
    torch.save(dict(state), stream)
    return stream.getvalue()


def torch_saved_before(state: Mapping[str, torch.Tensor]) -> bytes:
    stream = io.BytesIO()
    torch.save(dict(state), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


WRITERS: dict[str, Callable[[Mapping[str, torch.Tensor]], bytes]] = {
    "safetensors": lambda state: save(dict(state)),
    "bin": torch_saved,
    "pth": torch_saved_before,
}


def files(ending: str = "safetensors", folder: str = "") -> dict[str, bytes]:
    state = weights()
    shards = {f"{shard}.{ending}": {key: state[key]} for key, shard in MAP.items()}
    index = {"metadata": {"total_size": 64}, "weight_map": {key: f"{shard}.{ending}" for key, shard in MAP.items()}}
    held = {shard: WRITERS[ending](tensors) for shard, tensors in shards.items()}
    held |= {f"model.{ending}.index.json": json.dumps(index).encode(), "config.json": b"{}", "README.md": b"hello"}
    return {folder + file: content for file, content in held.items()}


def zipped(path: Path, held: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as opened:
        for file, content in held.items():
            opened.writestr(file, content)
    return path


@pytest.mark.parametrize("folder", ["", "model/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("ending", list(WRITERS))
def test_shards_are_read_as_one_state_dict(ending: str, compression: int, folder: str, tmp_path: Path) -> None:
    opened = open_checkpoint(zipped(tmp_path / "f", files(ending, folder), compression))
    assert {key: value.tolist() for key, value in opened.state_dict.items()} == {
        key: value.tolist() for key, value in weights().items()
    }
    assert opened.inspection.format == "sharded"
    assert any("2 shards" in note for note in opened.inspection.notes)


def test_of_two_kinds_the_safetensors_are_read(tmp_path: Path) -> None:
    both = files("bin") | files("safetensors")
    assert list(open_checkpoint(zipped(tmp_path / "f", both)).state_dict) == ["0.weight", "0.bias"]


def changed(**changes: Any) -> dict[str, bytes]:
    held = files()
    index = json.loads(held["model.safetensors.index.json"])
    for key, value in changes.items():
        index["weight_map" if key == "weight_map" else key] = value
    return held | {"model.safetensors.index.json": json.dumps(index).encode()}


def without(file: str) -> dict[str, bytes]:
    return {key: content for key, content in files().items() if key != file}


GADGET = archive(program(call(name("posix", "system"), text("id"))))

REFUSED: dict[str, tuple[dict[str, bytes], type[RecastError]]] = {
    "no shard": (without(f"{FIRST}.safetensors"), CorruptCheckpoint),
    "no map": (changed(weight_map=None), CorruptCheckpoint),
    "an empty map": (changed(weight_map={}), CorruptCheckpoint),
    "a map of lists": (changed(weight_map={"0.weight": ["a"]}), CorruptCheckpoint),
    "another file": (changed(weight_map={"0.weight": f"{SECOND}.safetensors"}), CorruptCheckpoint),
    "a path up": (changed(weight_map={"0.weight": "../../etc/passwd"}), CorruptCheckpoint),
    "a path": (changed(weight_map={"0.weight": "/etc/passwd"}), CorruptCheckpoint),
    "no JSON": (files() | {"model.safetensors.index.json": b"{"}, CorruptCheckpoint),
    "a list": (files() | {"model.safetensors.index.json": b"[]"}, CorruptCheckpoint),
    "deep JSON": (files() | {"model.safetensors.index.json": b"[" * 100_000}, CorruptCheckpoint),
    "two indexes": (files() | {"other/model.safetensors.index.json": b"{}"}, CorruptCheckpoint),
    "many shards": (changed(weight_map={f"k{i}": f"s{i}" for i in range(1_001)}), PayloadTooLarge),
    "a shard that is damaged": (files() | {f"{FIRST}.safetensors": b"\x08" + bytes(7) + b'{"a":'}, RecastError),
    "a shard that is text": (files() | {f"{FIRST}.safetensors": b"hello"}, RecastError),
    "a shard that calls": (files() | {f"{FIRST}.safetensors": GADGET}, UnsafeCheckpoint),
    "a shard that is cut": (files() | {f"{FIRST}.safetensors": torch_saved(weights())[:200]}, CorruptCheckpoint),
    "a name that leads out": (files() | {"../x": b""}, CorruptCheckpoint),
}


@pytest.mark.parametrize("kind", list(REFUSED))
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_what_does_not_fit_together_is_refused(kind: str, compression: int, tmp_path: Path) -> None:
    held, error = REFUSED[kind]
    with pytest.raises(error) as refused:
        open_checkpoint(zipped(tmp_path / "f", held, compression))
    assert refused.value.status in (413, 415, 422)


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLarge, match="declares files"):
        open_checkpoint(zipped(tmp_path / "f", files() | {"zeros": bytes(128 << 20)}, zipfile.ZIP_DEFLATED))


def test_a_damaged_deflated_shard_is_refused(tmp_path: Path) -> None:
    content = zipped(tmp_path / "f", files(), zipfile.ZIP_DEFLATED).read_bytes()
    at = content.index(f"{FIRST}.safetensors".encode()) + 60
    (tmp_path / "f").write_bytes(content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :])
    with pytest.raises(CorruptCheckpoint):
        open_checkpoint(tmp_path / "f")


def test_the_directory_of_the_zip_is_read_once_however_many_shards_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    parse = zipfile.ZipFile._RealGetContents  # type: ignore[attr-defined]
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", lambda self: (read.append(self), parse(self))[1])
    opened = open_checkpoint(zipped(tmp_path / "f", files(), zipfile.ZIP_DEFLATED))
    assert len(opened.state_dict) > 1
    assert len(read) <= 3


def test_a_shard_with_another_checksum_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "f", files(), zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as archive:
        member = next(one for one in archive.infolist() if one.filename.endswith(".safetensors"))
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", member.CRC), struct.pack("<L", member.CRC ^ 1)))
    with pytest.raises(CorruptCheckpoint, match="checksum"):
        open_checkpoint(path)


def test_tensors_that_the_index_does_not_name_are_told(tmp_path: Path) -> None:
    opened = open_checkpoint(zipped(tmp_path / "f", changed(weight_map={"0.bias": f"{SECOND}.safetensors"})))
    assert list(opened.state_dict) == ["0.bias"]
    both = files() | {f"{SECOND}.safetensors": save(weights())}
    opened = open_checkpoint(zipped(tmp_path / "g", both))
    assert any("1 tensors that the index does not name" in note for note in opened.inspection.notes)
