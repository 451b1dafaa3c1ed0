"""What a weights file holds, read by the client without torch; the files are written by the real libraries."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from recast_client import Client, NoManifest, read_manifest
from safetensors.torch import save_file
from torch import nn

from tests.api.server import Backstage, known_layouts_of

STATE = {
    "conv.weight": torch.zeros(4, 3, 3, 3, dtype=torch.float16),
    "fc.weight": torch.zeros(8, 4, dtype=torch.bfloat16),
    "steps": torch.tensor(3),
}
WANTED = {
    "conv.weight": {"shape": [4, 3, 3, 3], "dtype": "float16"},
    "fc.weight": {"shape": [8, 4], "dtype": "bfloat16"},
    "steps": {"shape": [], "dtype": "int64"},
}


class Wicked:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/recast-client-ran-a-pickle"),))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        {"epoch": 3, "model": STATE, "optim": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
        {"args": torch.nn.Conv2d, "ema": {"state_dict": {key: nn.Parameter(v, False) for key, v in STATE.items()}}},
    ],
    ids=["plain", "ordered", "nested", "parameters"],
)
def test_keys_shapes_and_dtypes_of_what_torch_saves_are_read(content: Any, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert read_manifest(path) == WANTED


def test_the_header_of_safetensors_is_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors", metadata={"format": "pt"})
    found = read_manifest(tmp_path / "w.safetensors")
    assert found["fc.weight"] == {"shape": [8, 4], "dtype": "BF16"}
    assert found.keys() == STATE.keys()


def test_nothing_of_a_pickle_is_run(tmp_path: Path) -> None:
    torch.save({"hook": Wicked(), "model": STATE}, tmp_path / "w.pth")
    assert read_manifest(tmp_path / "w.pth") == WANTED
    assert not Path("/tmp/recast-client-ran-a-pickle").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02]q\x00.", b"\xff" * 64, pickle.dumps({"a": 1})])
def test_what_is_no_weights_file_is_told_as_such(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(NoManifest):
        read_manifest(tmp_path / "w.pth")


def test_a_file_is_recognised_without_being_sent(backstage: Backstage, url: str, tmp_path: Path) -> None:
    backstage.know_layouts()
    layout = known_layouts_of("torchvision/resnet18")[0]
    state = {key: torch.zeros(tensor.plain) for key, tensor in layout.tensors.items()}
    torch.save({**state, "fc.weight": torch.zeros(37, 512), "fc.bias": torch.zeros(37)}, tmp_path / "birds.pth")
    with Client(url) as client:
        told = client.preflight(tmp_path / "birds.pth")
        assert told["proposals"][0]["architecture_options"] == {"num_classes": 37}
        assert (
            client.preflight(tmp_path / "birds.pth", architecture="torchvision/resnet18")["verdict"] == "does_not_load"
        )
