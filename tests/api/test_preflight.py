"""Asking before anything is converted: would it load, what is it, what does it take."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.api import bodies, preflight
from tests.api.server import INSPECTION, Backstage, submit, weights

RESNET18 = "torchvision/resnet18"


@pytest.fixture(scope="module")
def manifest(backstage: Backstage) -> dict[str, Any]:
    """Of a resnet18 with 37 classes, as in the header of a safetensors file; its layouts are known."""
    backstage.know_layouts()
    shapes = backstage.shapes(RESNET18)
    shapes |= {"fc.weight": [37, 512], "fc.bias": [37]}
    return {key: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for key, shape in shapes.items()}


def ask(client: httpx.Client, **members: Any) -> dict[str, Any]:
    answer = client.post("/v1/preflight", json=members)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_file_of_an_unknown_architecture_is_recognised_by_its_header(client, manifest):
    told = ask(client, manifest={"__metadata__": {"format": "pt"}, **manifest})
    assert told["verdict"] == "loads"
    assert told["detail"].startswith("torchvision/resnet18 with num_classes=37: every tensor fits.")
    best = told["proposals"][0]
    assert (best["architecture"], best["architecture_options"]) == (RESNET18, {"num_classes": 37})
    assert told["asked"] is None
    assert told["memory_bytes"] > 4 * told["bytes"]
    assert told["targets"]["onnx"] == {
        "template": False,
        "seconds": told["targets"]["onnx"]["seconds"],
        "based_on": "formula",
    }


def test_what_a_named_architecture_lacks_is_told_with_the_option_that_fits(client, manifest):
    told = ask(client, manifest=manifest, architecture=RESNET18)
    assert told["verdict"] == "does_not_load"
    assert told["asked"]["shape_mismatches"] == [
        "fc.weight: checkpoint (37, 512), architecture (1000, 512)",
        "fc.bias: checkpoint (37,), architecture (1000,)",
    ]
    assert told["proposals"][0]["architecture_options"] == {"num_classes": 37}
    fits = ask(client, manifest=manifest, architecture=RESNET18, architecture_options={"num_classes": 37})
    assert (fits["verdict"], fits["proposals"]) == ("loads", [])


def test_a_checkpoint_that_was_uploaded_is_looked_at_by_its_id(client, backstage, manifest):
    sent = client.post("/v1/checkpoints", content=weights(b"preflight"), headers={"Prefer": "wait=0"}).json()
    backstage.inspect(sent["sha256"], INSPECTION)
    told = ask(client, checkpoint=sent["sha256"], architecture=RESNET18)
    assert told["verdict"] == "does_not_load"
    assert told["asked"]["missing"] > 50
    assert len(told["asked"]["missing_keys"]) == 50
    assert client.post("/v1/preflight", json={"checkpoint": "0" * 64}).json()["code"] == "unknown_checkpoint"


def test_seconds_are_those_of_finished_conversions_of_the_architecture(client, backstage, manifest):
    done = submit(client).json()
    backstage.finish(done["id"])
    told = ask(client, manifest=manifest, architecture=RESNET18)
    assert told["targets"]["onnx"]["based_on"] == "history"
    assert told["targets"]["torchscript"]["based_on"] == "formula"


def test_an_architecture_whose_layout_is_not_known_is_not_judged(client, manifest):
    told = ask(client, manifest=manifest, architecture="torchvision/resnet50")
    assert told["verdict"] == "unknown"
    assert told["asked"] is None
    assert told["proposals"][0]["architecture"] == RESNET18


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"manifest": {}, "checkpoint": "0" * 64},
        {"manifest": {"a": {"shape": [-1]}}},
        {"manifest": {"a": {"shape": ["64"]}}},
        {"manifest": {"a": [1, 2]}},
        {"manifest": {"a": {"shape": [1] * 65}}},
        {"manifest": {"a": {"shape": [1]}}, "color": "red"},
    ],
)
def test_what_is_no_manifest_is_refused_in_words(client, members):
    answer = client.post("/v1/preflight", json=members)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_request"


def is_beside_the_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


WRONG: dict[str, Any] = {
    "wrong sizes": {str(i): {"shape": [-1] * 64} for i in range(5000)},
    "one wrong shape": {"a": {"shape": [-1] * 300_000}},
    "one with members": {"a": {"shape": [], **{str(i): 0 for i in range(300_000)}}},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_large_manifest_that_is_wrong_is_read_in_small_pieces_and_off_the_loop(client, monkeypatch, wrong):
    """While a call of pydantic lasts nobody else is answered, and it makes an error of each wrong value."""
    found: list[tuple[int, bool]] = []
    checked: Callable[..., Any] = bodies.validated

    def observed(model: Any, body: Any) -> Any:
        values = sum(len(v) if isinstance(v, list) else 1 for t in body["manifest"].values() for v in t.values())
        found.append((values, is_beside_the_loop()))
        return checked(model, body)

    monkeypatch.setattr(preflight, "validated", observed)
    answer = client.post("/v1/preflight", json={"manifest": wrong})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"].startswith("manifest.")
    assert all(values <= 200 * 65 and off_the_loop for values, off_the_loop in found)
    assert found


def test_values_are_counted_before_any_is_made(client, monkeypatch):
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was read")

    commas = {str(i): {"shape": [1], "dtype": "F32"} for i in range(100)} | {"," * 450_000: {"shape": [1]}}
    assert client.post("/v1/preflight", json={"manifest": commas}).status_code == 200  # they are in a string
    many = json.dumps({"manifest": {"a": {"shape": [0] * 450_000}}})
    monkeypatch.setattr(bodies.json, "loads", never)
    with pytest.raises(bodies.InvalidRequest, match="more than 400000 values"):
        bodies.parse_object(many, "the body", preflight.MOST_VALUES)
