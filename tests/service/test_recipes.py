"""Recipes against a running service: heads that tutorials publish, converted without a line of code."""

import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from tests.service.custom_heads import published
from tests.service.requests import artifact, saved

TARGETS = [{"target": "onnx"}, {"target": "torchscript"}]
SEED = 20
BATCH = 3


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    torch.manual_seed(SEED)
    built = {name: one.build().eval() for name, one in published().items()}
    for model in built.values():
        for module in model.modules():  # what training makes of them
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.normal_(module.running_mean, std=0.1)
    return built


def register(client: httpx.Client, name: str, recipe: dict[str, Any]) -> httpx.Response:
    return client.post("/v1/architectures", json={"name": name, **recipe}, headers={"Prefer": "wait=120"})


def test_ten_published_kinds_of_heads_convert_by_recipes_alone(client, models):
    groups = {}
    for name, one in published().items():
        answer = register(client, f"heads/{name}", one.recipe)
        assert answer.status_code == 201, answer.text
        asked = {"architecture": f"heads/{name}", "checkpoint": _sent(client, models[name]), "targets": TARGETS}
        groups[name] = client.post("/v1/groups", json=asked).json()
    for name, group in groups.items():
        done = client.get(group["links"]["self"], headers={"Prefer": "wait=500"}).json()
        assert done["state"] == "succeeded", (name, [one["problem"] or one["findings"] for one in done["conversions"]])
        for conversion in done["conversions"]:
            _require_equal(client, conversion, models[name])


def test_the_doctor_proposes_the_recipe_of_a_head_that_is_the_files_own(client, models):
    for name, head, expected in (
        ("sequential-head", "fc.1", {"replace"}),
        ("two-headed", "gender", {"prefix", "replace", "heads"}),
    ):
        shapes = {key: list(value.shape) for key, value in models[name].state_dict().items()}
        shapes[f"{head}.weight"][0] = shapes[f"{head}.bias"][0] = 7  # another one than is registered
        manifest = {key: {"shape": shape, "dtype": "float32"} for key, shape in shapes.items()}
        told = client.post("/v1/preflight", json={"manifest": manifest, "filename": "test_resnet.pth"}).json()
        proposed = told["recipe"]["recipe"]
        assert proposed["base"] == "timm/test_resnet"
        assert expected <= proposed.keys()
        answer = register(client, f"doctor/{name}", proposed | {"name": f"doctor/{name}"})
        assert answer.status_code == 201, answer.text
        again = client.post("/v1/preflight", json={"manifest": manifest, "architecture": f"doctor/{name}"}).json()
        assert again["verdict"] == "loads", again["detail"]


def test_what_a_file_lacks_a_recipe_for_is_told_with_it(client, models):
    asked = {"architecture": "timm/test_resnet", "target": "onnx", "checkpoint": _sent(client, models["two-headed"])}
    answer = client.post("/v1/conversions", json=asked, headers={"Prefer": "wait=120"})
    assert answer.json()["code"] == "key_mismatch"
    assert "POST /v1/architectures" in answer.json()["hint"]


def _sent(client: httpx.Client, model: nn.Module) -> str:
    content = saved(model.state_dict())
    answer = client.post("/v1/checkpoints", files={"file": ("head.pth", content)}, headers={"Prefer": "wait=0"})
    return str(answer.json()["sha256"])


def _require_equal(client: httpx.Client, conversion: dict[str, Any], model: nn.Module) -> None:
    """The artifact computes what the published model computes, at a batch that nobody told of."""
    content = artifact(client, conversion)
    if conversion["target"] == "onnx":
        session = onnxruntime.InferenceSession(content)
        inputs = {spec.name: _drawn(spec.name, [BATCH, *spec.shape[1:]]) for spec in session.get_inputs()}
        outputs = session.run(None, inputs)
    else:
        script = torch.jit.load(io.BytesIO(content))
        names = ["input_ids", "attention_mask"] if "bert" in dict(model.named_children()) else ["images"]
        shape = [BATCH, 7] if len(names) > 1 else [BATCH, next(model.parameters()).shape[1], 160, 160]
        inputs = {name: _drawn(name, shape) for name in names}
        with torch.no_grad():
            result = script(*(torch.from_numpy(value) for value in inputs.values()))
        outputs = [value.numpy() for value in (result if isinstance(result, tuple) else (result,))]
    with torch.no_grad():
        expected = model(*(torch.from_numpy(value) for value in inputs.values()))
    listed = expected if isinstance(expected, tuple) else (expected,)
    assert len(outputs) == len(listed)
    for found, wanted in zip(outputs, listed, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=2e-3, atol=2e-4, err_msg=conversion["architecture"])


def _drawn(name: str, shape: list[Any]) -> Any:
    generator = np.random.default_rng(SEED)
    sizes = [size if isinstance(size, int) else 7 for size in shape]
    if name == "input_ids":
        return generator.integers(0, 99, sizes)
    if name == "attention_mask":
        return np.ones(sizes, dtype=np.int64)
    return generator.standard_normal(sizes).astype(np.float32)


@pytest.mark.parametrize(
    ("replace", "said"),
    [
        ({"fcc": []}, "Did you mean fc"),
        ({"fc": {"Linear": {"out_features": 3, "in_features": 5}}}, "fc: Linear is given (2, "),
        ({"fc": ["Flatten", {"Conv2d": {"out_channels": 3, "kernel_size": 1}}]}, "fc.1: Conv2d is given (2, "),
    ],
)
def test_what_does_not_fit_the_base_is_told_with_the_place(client, replace, said):
    answer = register(client, "heads/wrong", {"base": "timm/test_resnet", "replace": replace})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_recipe")
    assert said in answer.text
    assert client.get("/v1/architectures/heads/wrong").status_code == 404


def test_the_recipes_of_the_guide_can_be_built(client):
    page = Path(__file__).parents[2] / "docs" / "recipes.md"
    shown = re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(shown) >= 4
    for text in shown:
        recipe = json.loads(text)
        answer = register(client, recipe.pop("name"), recipe)
        assert answer.status_code in (200, 201), answer.text
