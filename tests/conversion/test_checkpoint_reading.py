"""Checkpoints as people save them are read, whatever the format and the wrapping."""

import argparse
import json
import pathlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from app.conversion.checkpoint import open_checkpoint
from app.conversion.checkpoint.stored_tensors import MAX_TENSORS
from app.domain.errors import AmbiguousCheckpoint, NoStateDict, PayloadTooLarge, UnsupportedTensor
from tests.conversion.corpus import saved, training_checkpoint, weights


@pytest.mark.parametrize("suffix", ["zip.pt", "legacy.pth", "safetensors"])
def test_every_format_gives_the_same_tensors(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(weights(), path)
    else:
        saved(weights(), path, legacy=suffix.startswith("legacy"))
    opened = open_checkpoint(path)
    assert {name: tensor.tolist() for name, tensor in opened.state_dict.items()} == {
        name: tensor.tolist() for name, tensor in weights().items()
    }
    inspection = opened.inspection
    assert (inspection.parameter_count, inspection.tensor_bytes, inspection.dtypes) == (16, 64, {"float32": 2})
    assert inspection.bytes == path.stat().st_size
    assert (inspection.nesting, inspection.candidates) == ((), ("",))


@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_tensors_stay_in_the_file_and_the_file_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    tensors = {"w": torch.zeros(1 << 20)}
    if kind == "zip":
        saved(tensors, path)
    else:
        save_file(tensors, path)
    content = path.read_bytes()
    opened = open_checkpoint(path)
    address = opened.state_dict["w"].data_ptr()
    mapped = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path)) and int(line.split("-")[0], 16) <= address < int(line.split("-")[1].split()[0], 16)
    ]
    assert mapped
    opened.state_dict["w"].fill_(1)
    assert path.read_bytes() == content


def test_a_training_checkpoint_is_unwrapped_without_asking(tmp_path: Path) -> None:
    opened = open_checkpoint(saved(training_checkpoint(), tmp_path / "c.pt"))
    assert opened.inspection.nesting == ("model",)
    assert list(opened.state_dict) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "params_ema", "ema", "net"])
def test_common_wrappers_are_unwrapped(key: str, tmp_path: Path) -> None:
    assert open_checkpoint(saved({key: weights(), "step": 1}, tmp_path / "c.pt")).inspection.nesting == (key,)


def test_a_state_dict_five_levels_down_is_found(tmp_path: Path) -> None:
    nested = {"a": {"b": {"c": {"d": {"e": weights()}}}}}
    assert open_checkpoint(saved(nested, tmp_path / "c.pt")).inspection.nesting == ("a", "b", "c", "d", "e")


def test_several_state_dicts_are_a_question_that_names_them(tmp_path: Path) -> None:
    path = saved({"model": weights(), "ema": {"shadow.model": weights()}}, tmp_path / "c.pt")
    with pytest.raises(AmbiguousCheckpoint) as asked:
        open_checkpoint(path)
    assert asked.value.problem().extra["candidates"] == ["model", "ema.shadow.model"]
    assert "checkpoint_key" in str(asked.value.told_hint)
    assert open_checkpoint(path, "ema.shadow.model").inspection.nesting == ("ema", "shadow.model")


def test_one_state_dict_under_two_keys_is_no_question(tmp_path: Path) -> None:
    tensors = weights()
    assert open_checkpoint(saved({"model": tensors, "best": tensors}, tmp_path / "c.pt")).inspection.nesting == (
        "model",
    )


def test_a_wrong_checkpoint_key_names_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(NoStateDict) as refused:
        open_checkpoint(saved({"model": weights()}, tmp_path / "c.pt"), "generator")
    assert "'model'" in str(refused.value.told_hint)


@pytest.mark.parametrize("legacy", [False, True])
def test_inert_objects_beside_the_weights_are_left_unread_and_said(legacy: bool, tmp_path: Path) -> None:
    content = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs")),
        "best": np.float64(0.9),
        "history": np.arange(3),
        "state_dict": weights(),
    }
    allowed = torch.serialization.get_safe_globals()
    opened = open_checkpoint(saved(content, tmp_path / "c.pt", legacy=legacy))
    assert list(opened.state_dict) == ["0.weight", "0.bias"]
    assert any("argparse.Namespace" in note for note in opened.inspection.notes)
    assert set(torch.serialization.get_safe_globals()) == set(allowed)


def test_parameters_are_read_as_plain_tensors(tmp_path: Path) -> None:
    named = OrderedDict(torch.nn.Linear(3, 4).named_parameters())
    opened = open_checkpoint(saved(named, tmp_path / "c.pt"))
    assert not any(tensor.requires_grad for tensor in opened.state_dict.values())


def test_module_versions_are_kept_for_the_layers_that_need_them(tmp_path: Path) -> None:
    state = torch.nn.Sequential(torch.nn.BatchNorm1d(4)).state_dict()
    assert open_checkpoint(saved({"model": state}, tmp_path / "c.pt")).versions["0"] == {"version": 2}


def test_entries_that_are_not_tensors_are_said(tmp_path: Path) -> None:
    opened = open_checkpoint(saved({**weights(), "epoch": 3}, tmp_path / "c.pt"))
    assert any("epoch" in note for note in opened.inspection.notes)


def test_tied_tensors_are_listed_as_tied_and_counted_once(tmp_path: Path) -> None:
    shared = torch.randn(5, 2)
    inspection = open_checkpoint(saved({"a": shared, "b": shared}, tmp_path / "c.pt")).inspection
    assert [tensor.tied_to for tensor in inspection.tensors] == [None, "a"]
    assert inspection.tensor_bytes == 40


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(0, 3),
        torch.tensor(2.0),
        torch.randn(4, 6).t()[::2],
        torch.randn(3, dtype=torch.bfloat16),
        torch.randn(3).to(torch.float8_e4m3fn),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]),
        torch.arange(3).expand(2, 3),
    ],
    ids=["0-element", "0-dim", "strided", "bfloat16", "float8", "bool", "complex", "expanded"],
)
def test_unusual_dense_tensors_are_read_as_they_are(tensor: torch.Tensor, tmp_path: Path) -> None:
    read = open_checkpoint(saved({"w": tensor}, tmp_path / "c.pt")).state_dict["w"]
    assert read.dtype == tensor.dtype
    assert read.shape == tensor.shape
    assert read.contiguous().view(torch.uint8).equal(tensor.contiguous().view(torch.uint8)) if tensor.ndim else True


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        torch.empty(3, device="meta"),
    ],
    ids=["sparse", "quantized", "meta"],
)
def test_tensors_that_are_no_plain_weights_are_refused_by_name(tensor: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTensor, match="'w'"):
        open_checkpoint(saved({"w": tensor}, tmp_path / "c.pt"))


def test_strange_names_are_kept(tmp_path: Path) -> None:
    names = ["a\nb", "\N{SNOWMAN}", "../../etc/passwd", "x" * 1024]
    opened = open_checkpoint(saved({name: torch.ones(1) for name in names}, tmp_path / "c.pt"))
    assert list(opened.state_dict) == names


@pytest.mark.parametrize("name", ["nul\0", "\ud800", "x" * 1025, "\N{SNOWMAN}" * 400], ids=repr)
def test_names_that_nothing_can_hold_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTensor) as refused:
        open_checkpoint(saved({name: torch.ones(1)}, tmp_path / "c.pt"))
    assert len(refused.value.detail) < 1000
    refused.value.problem().model_dump_json().encode("utf-8")


def test_tens_of_thousands_of_tensors_are_read(tmp_path: Path) -> None:
    shared = torch.zeros(1)
    opened = open_checkpoint(saved({f"layer.{i}": shared for i in range(30_000)}, tmp_path / "c.pt"))
    assert len(opened.state_dict) == 30_000


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_how_many_tensors_are_read_is_limited(kind: str, tmp_path: Path) -> None:
    if kind == "torch":
        shared = torch.zeros(1)
        path = saved({f"layer.{i}": shared for i in range(MAX_TENSORS + 1)}, tmp_path / "c.pt")
    else:
        empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        header = json.dumps({f"layer.{i}": empty for i in range(MAX_TENSORS + 1)}).encode()
        path = tmp_path / "c.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(PayloadTooLarge, match="100,001 tensors") as refused:
        open_checkpoint(path)
    assert refused.value.told_hint
