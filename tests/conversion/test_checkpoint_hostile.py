"""Files that are no checkpoints, broken ones and attacks: a typed error each, and nothing runs."""

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from app.conversion.checkpoint import open_checkpoint
from app.domain.errors import (
    CorruptCheckpoint,
    EmptyFile,
    NoStateDict,
    PickledModule,
    RecastError,
    UnsafeCheckpoint,
    UnsupportedFormat,
)
from tests.conversion.corpus import (
    Executes,
    Rebuilt,
    gadget_pickles,
    legacy_pickle,
    rezipped,
    safetensors_file,
    saved,
    weights,
    zipped_pickle,
)


def tar_bytes() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    return stream.getvalue()


def npz_bytes() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(3))
    return stream.getvalue()


def onnx_bytes() -> bytes:
    graph = onnx.helper.make_graph([], "main", [], [])
    return onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "PNG"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (gzip.compress(b"weights", mtime=0), "gzip"),
        (tar_bytes(), "tar"),
        (npz_bytes(), "npz"),
        (onnx_bytes(), "ONNX"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "LFS"),
        (b"GGUF" + bytes(20), "GGUF"),
        (b'{"weights": [1, 2]}', "JSON"),
        (b"epoch 1 loss 0.5\n" * 9, "plain text"),
        (pickle.dumps({"w": [1.0]}, protocol=4), "pickle"),
        (bytes(range(256)) * 20, "no known format"),
    ],
)
def test_foreign_files_are_called_what_they_look_like(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(UnsupportedFormat, match=words) as refused:
        open_checkpoint(tmp_path / "f")
    assert refused.value.told_hint


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(EmptyFile):
        open_checkpoint(tmp_path / "f")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_module_gets_the_snippet_that_saves_its_weights(legacy: bool, tmp_path: Path) -> None:
    path = saved(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "f", legacy=legacy)
    with pytest.raises(PickledModule) as refused:
        open_checkpoint(path)
    assert "m.state_dict()" in str(refused.value.told_hint)


class Scale(torch.nn.Module):
    """A model of its author's own that holds no layer of a library, so that nothing in its pickle says "model"."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_module_of_foreign_classes_alone_gets_that_snippet_too(legacy: bool, tmp_path: Path) -> None:
    path = saved(Scale(), tmp_path / "f", legacy=legacy)
    with pytest.raises(UnsafeCheckpoint) as refused:
        open_checkpoint(path)
    hint = str(refused.value.told_hint)
    assert "c = torch.load(path, weights_only=False)" in hint
    assert "torch.save(c.state_dict(), 'weights.pth')" in hint
    assert "torch.save(c['state_dict'], 'weights.pth')" in hint


@pytest.mark.parametrize("container", [zipped_pickle, legacy_pickle], ids=["zip", "legacy"])
@pytest.mark.parametrize("gadget", list(gadget_pickles(Path("x"))))
def test_no_gadget_runs(container: Callable[[bytes, Path], Path], gadget: str, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = container(gadget_pickles(witness)[gadget], tmp_path / "f")
    with pytest.raises(RecastError) as refused:
        open_checkpoint(path)
    assert refused.value.status == 422
    assert not witness.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_unsafe_globals_are_listed_with_the_way_out(legacy: bool, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = saved({"model": weights(), "hook": Executes(witness)}, tmp_path / "f", legacy=legacy)
    with pytest.raises(UnsafeCheckpoint) as refused:
        open_checkpoint(path)
    assert refused.value.extra["unsafe_globals"] == ["builtins.exec"]
    assert "torch.save" in str(refused.value.told_hint)
    assert not witness.exists()


# --- zip tricks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return saved(weights(), tmp_path / "good.pt")


def refused(path: Path) -> str:
    with pytest.raises(CorruptCheckpoint) as error:
        open_checkpoint(path)
    return error.value.detail


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_truncated_archives(archive: Path, share: float) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    assert "cannot be read" in refused(archive)


def test_compressed_records(archive: Path, tmp_path: Path) -> None:
    bomb = rezipped(archive, tmp_path / "bomb", compression=zipfile.ZIP_DEFLATED, extra={"good/data/9": bytes(1 << 20)})
    assert "compressed" in refused(bomb)


def test_a_missing_data_pkl(archive: Path, tmp_path: Path) -> None:
    path = rezipped(archive, tmp_path / "f", lambda name, content: None if name.endswith("data.pkl") else content)
    assert "data.pkl" in refused(path)


def test_a_missing_storage(archive: Path, tmp_path: Path) -> None:
    refused(rezipped(archive, tmp_path / "f", lambda name, content: None if name.endswith("data/0") else content))


@pytest.mark.parametrize("size", [0, 8, 64])
def test_a_storage_shorter_or_longer_than_declared(archive: Path, size: int, tmp_path: Path) -> None:
    path = rezipped(archive, tmp_path / "f", lambda name, content: bytes(size) if name.endswith("data/0") else content)
    assert "48 bytes" in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_records(archive: Path, tmp_path: Path) -> None:
    path = rezipped(archive, tmp_path / "f")
    with zipfile.ZipFile(path, "a") as again:
        again.writestr("good/data/0", bytes(48))
    assert "2 times" in refused(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "good/../../x"])
def test_record_names_that_lead_outside(archive: Path, name: str, tmp_path: Path) -> None:
    assert "is none of a file" in refused(rezipped(archive, tmp_path / "f", extra={name: b"x"}))


def test_a_local_header_that_disagrees_with_the_directory(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    first = content.index(b"good/data/0")
    content[first : first + 11] = b"good/data/7"
    archive.write_bytes(content)
    assert "disagree" in refused(archive)


def test_thousands_of_records_are_no_problem(archive: Path, tmp_path: Path) -> None:
    path = rezipped(archive, tmp_path / "f", extra={f"good/extra/{i}": b"" for i in range(20_000)})
    assert list(open_checkpoint(path).state_dict) == ["0.weight", "0.bias"]


def test_big_endian_and_unmarked_archives(archive: Path, tmp_path: Path) -> None:
    swapped = rezipped(archive, tmp_path / "big", lambda n, c: b"big" if n.endswith("byteorder") else c)
    opened = open_checkpoint(swapped)
    expected = weights()["0.bias"].numpy().byteswap()
    assert opened.state_dict["0.bias"].numpy().tobytes() == expected.tobytes()
    unmarked = rezipped(archive, tmp_path / "none", lambda n, c: None if n.endswith("byteorder") else c)
    assert open_checkpoint(unmarked).state_dict["0.bias"].equal(weights()["0.bias"])
    refused(rezipped(archive, tmp_path / "odd", lambda n, c: b"middle" if n.endswith("byteorder") else c))


# --- tensors and containers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((10**6,), (1,), 0),
        ((4,), (1,), 100),
        ((4,), (-1,), 3),
        ((2**40,), (1,), 0),
        ((10**5, 10**5), (0, 0), 0),
        ((-4,), (1,), 0),
    ],
    ids=["too-large", "offset", "negative-stride", "huge", "expanded", "negative-size"],
)
def test_tensors_beyond_their_storage(
    size: tuple[int, ...], stride: tuple[int, ...], offset: int, legacy: bool, tmp_path: Path
) -> None:
    refused(saved({"w": Rebuilt(size, stride, offset)}, tmp_path / "f", legacy=legacy))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "empty dict"),
        ({"epoch": 3}, "without tensors"),
        ({1: torch.ones(2)}, "keys of type int"),
        ([torch.ones(2), torch.ones(3)], "list of 2"),
        (torch.ones(2), "one tensor"),
        (3, "int"),
    ],
)
def test_files_without_a_state_dict_say_what_they_hold(content: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(NoStateDict, match=words):
        open_checkpoint(saved(content, tmp_path / "f"))


def test_cycles_and_deep_nesting_end(tmp_path: Path) -> None:
    cycle: dict[str, object] = {}
    cycle["self"] = cycle
    with pytest.raises(NoStateDict):
        open_checkpoint(saved(cycle, tmp_path / "cycle"))
    deep = b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 5000 + b"N" + b"s" * 5000 + b"."
    with pytest.raises(NoStateDict):
        open_checkpoint(zipped_pickle(deep, tmp_path / "deep"))


def test_a_dictionary_that_doubles_at_each_level_is_walked_once(tmp_path: Path) -> None:
    node: dict[str, object] = {"w": weights()}
    for _ in range(15):
        node = {"a": node, "b": node, "c": node}
    assert len(open_checkpoint(saved(node, tmp_path / "f")).state_dict) == 2


# --- safetensors ---------------------------------------------------------------------------------------------------

F32 = {"dtype": "F32", "shape": [2]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {**F32, "data_offsets": [0, 8]}}, bytes(4)),
        ({"a": {**F32, "data_offsets": [0, 8]}}, bytes(12)),
        ({"a": {**F32, "data_offsets": [0, 8]}, "b": {**F32, "data_offsets": [4, 12]}}, bytes(12)),
        ({"a": {**F32, "data_offsets": [0, 8]}, "b": {**F32, "data_offsets": [12, 20]}}, bytes(20)),
        ({"a": {**F32, "data_offsets": [8, 0]}}, bytes(8)),
        ({"a": {**F32, "data_offsets": [0, 4]}}, bytes(4)),
        ({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        ({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 8]}}, bytes(8)),
        ({"a": {**F32, "data_offsets": [0, 8]}, "__metadata__": {"x": 1}}, bytes(8)),
        (
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            bytes(8),
        ),
        (b'{"a":', bytes(8)),
        (b'{"a":' + b"[" * 100_000, b""),
    ],
    ids=[
        "short",
        "trailing",
        "overlap",
        "hole",
        "reversed",
        "size",
        "dtype",
        "overflow",
        "metadata",
        "duplicate",
        "json",
        "deep",
    ],
)
def test_broken_safetensors(header: object, data: bytes, tmp_path: Path) -> None:
    refused(safetensors_file(header, data, tmp_path / "f"))


@pytest.mark.parametrize("length", [10**6, 2**40])
def test_a_safetensors_header_longer_than_the_file(length: int, tmp_path: Path) -> None:
    refused(safetensors_file({"a": {**F32, "data_offsets": [0, 8]}}, bytes(8), tmp_path / "f", length=length))


def test_a_safetensors_file_without_tensors(tmp_path: Path) -> None:
    with pytest.raises(NoStateDict):
        open_checkpoint(safetensors_file({}, b"", tmp_path / "f"))


# --- anything ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_no_change_of_one_byte_ends_in_anything_but_a_designed_error(legacy: bool, tmp_path: Path) -> None:
    good = saved(weights(), tmp_path / "good", legacy=legacy).read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(good)
        content[generator.integers(len(content))] = generator.integers(256)
        (tmp_path / "f").write_bytes(content)
        try:
            open_checkpoint(tmp_path / "f")
        except RecastError as error:
            assert error.status in (415, 422)  # noqa: PT017 - a change may also do no harm
