"""What training scripts leave beside the weights is left unread, wherever it stands."""

import argparse
import collections
import datetime
import pathlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import InterpolationMode

from app.conversion.checkpoint import open_checkpoint
from app.domain.errors import CorruptCheckpoint, PickledModule, UnsafeCheckpoint, UnsupportedTensor
from tests.conversion.corpus import rezipped, saved, weights, zipped_pickle

DEFAULTS: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
DEFAULTS["loss"].append(3)

LEFT = {
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs")),
    "path": Path("/tmp/runs"),
    "numpy scalar": np.float64(0.9),
    "numpy array": np.arange(6).reshape(2, 3),
    "numpy objects": np.array([{"a": 1}, None], dtype=object),
    "numpy dtype": np.dtype("float32"),
    "random state": np.random.get_state(),
    "datetime": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    "timedelta": datetime.timedelta(seconds=3),
    "defaultdict": DEFAULTS,
    "counter": collections.Counter("abca"),
    "deque": collections.deque([1, 2]),
    "set": {1, 2, 3},
    "frozenset": frozenset({"a"}),
    "complex": 1 + 2j,
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"abc"),
    "slice": slice(1, 2),
    "range": range(3),
    "enum": InterpolationMode.BILINEAR,
    "device": torch.device("cpu"),
    "dtype": torch.bfloat16,
    "size": torch.Size([1, 2]),
    "class of a layer": torch.nn.GELU,
    "function": torch.nn.functional.gelu,
    "python function": torch.nn.functional.relu,
    "loss": torch.nn.CrossEntropyLoss(weight=torch.ones(3)),
    "activation": torch.nn.LeakyReLU(0.2),
    "optimizer": torch.optim.AdamW([torch.zeros(2)], lr=0.1),
    "class of an optimizer": torch.optim.SGD,
    "keys of all types": {1: "a", (2, 3): "b", None: "c", 1.5: "d"},
}


@pytest.mark.parametrize("order", ["after", "before", "among"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", list(LEFT))
def test_weights_are_read_whatever_lies_beside_them(kind: str, legacy: bool, order: str, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "after": {"model": weights(), "left": LEFT[kind]},
        "before": {"left": LEFT[kind], "model": weights()},
        "among": {"left": LEFT[kind], "model": weights(), "epoch": 3, "again": LEFT[kind]},
    }[order]
    opened = open_checkpoint(saved(content, tmp_path / "f", legacy=legacy))
    assert opened.inspection.nesting == ("model",)
    assert {name: tensor.tolist() for name, tensor in opened.state_dict.items()} == {
        name: tensor.tolist() for name, tensor in weights().items()
    }


def test_omegaconf_after_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes by name and shape: it is nothing that Recast needs."""

    def class_of(module: str, name: str) -> Any:
        made = type(name, (), {"__module__": module})
        holder = types.ModuleType(module)
        setattr(holder, name, made)
        monkeypatch.setitem(sys.modules, module, holder)
        return made

    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    config, node = class_of("omegaconf.dictconfig", "DictConfig")(), class_of("omegaconf.nodes", "AnyNode")()
    node._val = 3
    config._content = {"lr": node, "steps": [node, node]}
    content = {"model": weights(), "config": config}
    assert list(open_checkpoint(saved(content, tmp_path / "f")).state_dict) == list(weights())


CALLS = {
    "torch.Tensor by REDUCE": b"ctorch\nTensor\nK\x40K\x40\x86R",
    "torch.FloatTensor by REDUCE": b"ctorch\nFloatTensor\nK\x40K\x40\x86R",
    "torch.Tensor by NEWOBJ": b"ctorch\nTensor\nK\x40K\x40\x86\x81",
    "torch.Tensor by OBJ": b"(ctorch\nTensor\nK\x40K\x40o",
    "torch.Tensor by INST": b"(K\x40K\x40itorch\nTensor\n",
    "torch.HalfTensor of cuda": b"ctorch.cuda\nHalfTensor\nK\x40\x85R",
    "a parameter of numbers": b"ctorch.nn.parameter\nParameter\nK\x40\x85\x81",
    "a storage class": b"ctorch\nFloatStorage\nK\x40\x85R",
    "an untyped storage": b"ctorch.storage\nUntypedStorage\nK\x40\x85R",
    "a type over another call": b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nTensor\nctorch\nTensor\nK\x40\x85}tR",
    "a tensor of no storage": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00K\x04\x85K\x01\x85\x89}tR",
    "a number of a tensor": b"K\x03K\x40\x85R",
}


@pytest.mark.parametrize("call", list(CALLS))
def test_no_tensor_is_made_of_anything_but_a_record_of_the_file(call: str, tmp_path: Path) -> None:
    pickled = b"\x80\x02}X\x06\x00\x00\x00weight" + CALLS[call] + b"s."
    with pytest.raises((UnsafeCheckpoint, CorruptCheckpoint)) as refused:
        open_checkpoint(zipped_pickle(pickled, tmp_path / "f"))
    assert refused.value.detail


@pytest.mark.parametrize("codec", [b"rot13", b"zlib_codec", b"utf-8", b"idna"])
def test_no_codec_runs_but_the_one_of_bytes(codec: bytes, tmp_path: Path) -> None:
    name = b"X" + len(codec).to_bytes(4, "little") + codec
    with pytest.raises(UnsafeCheckpoint, match="encodes"):
        open_checkpoint(
            zipped_pickle(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00a" + name + b"\x86R.", tmp_path / "f")
        )


@pytest.mark.parametrize("attribute", [b"detach", b"items", b"shape", b"data_ptr", b"__class__"])
@pytest.mark.parametrize("target", ["tensor", "dict"])
def test_attributes_that_a_pickle_gives_shadow_nothing(attribute: bytes, target: str, tmp_path: Path) -> None:
    """BUILD on a parameter or on an OrderedDict: {attribute: 0}."""
    state = b"}X" + len(attribute).to_bytes(4, "little") + attribute + b"K\x00sb"
    archive = saved(collections.OrderedDict(w=torch.nn.Parameter(torch.ones(3))), tmp_path / "good")

    def shadowed(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        if target == "dict":
            return content[:-1] + state + b"."
        place = content.rindex(b"R", 0, content.rindex(b"s"))
        return content[: place + 1] + state + content[place + 1 :]

    opened = open_checkpoint(rezipped(archive, tmp_path / "f", shadowed))
    assert opened.state_dict["w"].tolist() == [1, 1, 1]


def nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse"),
        (lambda: torch.empty(3, device="meta"), "without data"),
        (nested, "nested"),
        (lambda: torch.ones(3, dtype=torch.complex64).conj(), "lazy"),
        (lambda: torch.ones(3, dtype=torch.complex64).conj().imag, "lazy"),
    ],
    ids=["sparse", "csr", "meta", "nested", "conjugate", "negative"],
)
def test_tensors_that_are_no_plain_weights_are_named_and_harm_nothing_elsewhere(
    tensor: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedTensor, match=words):
        open_checkpoint(saved({"w": tensor()}, tmp_path / "f"))
    beside = {"model": weights(), "optimizer": {"state": {"w": tensor()}, "param_groups": []}}
    assert open_checkpoint(saved(beside, tmp_path / "g")).inspection.nesting == ("model",)


def test_a_pickled_model_beside_a_state_dict_is_not_passed_over(tmp_path: Path) -> None:
    """Which of the two is meant, the client says: where the key is given, the other is left unread."""
    path = saved({"net": torch.nn.Linear(2, 2), "ema": weights()}, tmp_path / "f")
    with pytest.raises(PickledModule):
        open_checkpoint(path)
    assert open_checkpoint(path, "ema").state_dict.keys() == weights().keys()


def test_a_file_of_layers_without_weights_is_a_pickled_module(tmp_path: Path) -> None:
    with pytest.raises(PickledModule):
        open_checkpoint(saved({"act": torch.nn.ReLU()}, tmp_path / "f"))
