"""A plug-in is changed under a running service: the next conversions are of the new source, earlier ones stay."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import torch

from tests.service.requests import artifact, convert, saved, succeeded
from tests.service.running import Service, free_port

SOURCE = '''
from torch import Tensor, nn

from recast_plugins import InputSpec, OutputSpec, Signature, architecture


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, values: Tensor) -> Tensor:
        return self.layer(values)FUNCTION


@architecture(
    "acme/net",
    family="mlp",
    signature=lambda: Signature(
        inputs=(InputSpec(name="values", shape=("batch", 4)),),
        outputs=(OutputSpec(name="scores", dtype="float32", shape=("batch", 2)),),
    ),
)
def net() -> nn.Module:
    """A layer."""
    return Net()
'''
RECIPE = {"name": "own/net", "base": "acme/net", "replace": {"layer": [{"Linear": {"out_features": 3}}]}}
PATIENCE = 120.0
"""Seconds."""


@pytest.fixture
def plugin(places: Path) -> Path:
    folder = places / "changing"
    folder.mkdir()
    file = folder / "acme.py"
    file.write_text(SOURCE.replace("FUNCTION", ""))
    return file


@pytest.fixture
def changing(places: Path, plugin: Path) -> Iterator[httpx.Client]:
    running = Service(places / "changed", free_port(), {"RECAST_PLUGINS_DIR": str(plugin.parent)})
    running.start()
    try:
        with httpx.Client(base_url=running.url, timeout=300) as client:
            yield client
    finally:
        assert running.stop() == 0, running.log[-4000:]


def described(client: httpx.Client, name: str, *, other_than: str = "") -> str:
    """Digest of the source, once it is another one."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = client.get(f"/v1/architectures/{name}").json()
        if answer.get("source_digest", other_than) != other_than:
            return str(answer["source_digest"])
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


def scores(content: bytes, values: Any) -> Any:
    return onnxruntime.InferenceSession(content).run(None, {"values": values})[0]


def test_a_changed_plugin_is_taken_up_without_a_restart(changing: httpx.Client, plugin: Path):
    torch.manual_seed(1)
    layer = torch.nn.Linear(4, 2)
    weights = saved({f"layer.{name}": value for name, value in layer.state_dict().items()})
    values = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    registered = changing.post("/v1/architectures", json=RECIPE, headers={"Prefer": "wait=120"})
    assert registered.status_code == 201, registered.text
    first = succeeded(convert(changing, weights, "acme/net", "onnx"))
    before = artifact(changing, first)
    digest, of_recipe = described(changing, "acme/net"), described(changing, "own/net")

    plugin.write_text(SOURCE.replace("FUNCTION", ".relu()"))
    assert described(changing, "acme/net", other_than=digest) != digest
    assert described(changing, "own/net", other_than=of_recipe) != of_recipe
    second = succeeded(convert(changing, weights, "acme/net", "onnx"))
    assert second["id"] != first["id"]
    expected = layer(torch.from_numpy(values)).detach().numpy()
    np.testing.assert_allclose(scores(artifact(changing, second), values), expected.clip(min=0), atol=1e-6)

    again = changing.get(f"/v1/conversions/{first['id']}").json()
    assert (again["state"], again["verdict"], again["artifact"]) == ("succeeded", first["verdict"], first["artifact"])
    assert artifact(changing, again) == before
    np.testing.assert_allclose(scores(before, values), expected, atol=1e-6)
