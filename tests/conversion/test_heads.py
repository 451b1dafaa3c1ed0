"""Heads of a file's own, told from keys and shapes alone: which recipe they are, and what no file can tell."""

from typing import Any

import pytest

from app.architectures.known import known_layouts
from app.conversion.heads import head_proposal
from app.conversion.matching import LayoutIndex
from app.domain.recipe import RecipeRequest, recipe_of

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def index() -> LayoutIndex:
    return LayoutIndex(file for file in known_layouts() if file.source in ("torchvision", "timm"))


def shapes_of(index: LayoutIndex, name: str, *without: str, prefix: str = "") -> Shapes:
    tensors = index.layouts(name)[0].tensors
    return {prefix + key: tensor.plain for key, tensor in tensors.items() if not key.startswith(without or ("\0",))}


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, size: int) -> Shapes:
    vectors = {f"{name}.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def proposed(index: LayoutIndex, shapes: Shapes) -> dict[str, Any] | None:
    found = head_proposal(index.rank(shapes), shapes)
    if found is None:
        return None
    recipe_of(RecipeRequest(**found.recipe))
    assert "POST /v1/architectures" in found.advice()
    return found.recipe


def test_a_head_in_the_place_of_the_last_layer(index):
    shapes = shapes_of(index, "timm/resnet50", "fc.") | linear("fc.0", 256, 2048) | linear("fc.3", 5, 256)
    found = head_proposal(index.rank(shapes), shapes)
    assert found is not None
    layers = [{"Linear": {"out_features": 256}}, "ReLU", "Dropout", {"Linear": {"out_features": 5}}]
    assert found.recipe["replace"] == {"fc": layers}
    assert found.assumed == ("fc.1 is ReLU", "fc.2 is Dropout")


def test_layers_that_have_names_and_the_base_that_keeps_most(index):
    shapes = shapes_of(index, "torchvision/vgg16", "classifier.")
    shapes |= linear("classifier.fc1", 500, 25088) | linear("classifier.fc2", 10, 500)
    recipe = proposed(index, shapes)
    assert recipe is not None
    assert recipe["base"] == "torchvision/vgg16"
    assert [layer for layer in recipe["replace"]["classifier"] if isinstance(layer, dict)] == [
        {"Linear": {"out_features": 500}, "name": "fc1"},
        {"Linear": {"out_features": 10}, "name": "fc2"},
    ]


def test_batch_norms_are_told_from_layer_norms(index):
    batch = shapes_of(index, "timm/efficientnet_b0", "classifier.") | norm("classifier.0", 1280)
    recipe = proposed(index, batch | linear("classifier.1", 5, 1280))
    assert recipe is not None
    assert recipe["replace"]["classifier"][0] == {"BatchNorm1d": {}}
    layer = shapes_of(index, "timm/vit_base_patch16_224", "head.") | linear("head.1", 9, 768)
    recipe = proposed(index, layer | {"head.0.weight": (768,), "head.0.bias": (768,)})
    assert recipe is not None
    assert recipe["replace"]["head"][0] == {"LayerNorm": {}}


@pytest.mark.parametrize("wrapper", ["", "model."])
def test_heads_beside_a_backbone(index, wrapper):
    shapes = shapes_of(index, "timm/resnet50", "fc.", prefix=f"{wrapper}backbone.")
    shapes |= linear(f"{wrapper}age", 1, 2048) | linear(f"{wrapper}gender.0", 64, 2048)
    recipe = proposed(index, shapes | linear(f"{wrapper}gender.2", 2, 64))
    assert recipe is not None
    assert (recipe["base"], recipe["prefix"], recipe["replace"]) == ("timm/resnet50", "backbone", {"fc": []})
    assert list(recipe["heads"]) == ["age", "gender"]


def test_a_backbone_under_a_name_whose_own_head_is_another(index):
    shapes = shapes_of(index, "timm/resnet50", "fc.", prefix="trunk.") | {"trunk.fc.weight": (24, 2048)}
    recipe = proposed(index, shapes)
    assert recipe is not None
    assert recipe["prefix"] == "trunk"
    assert recipe["replace"] == {"fc": {"Linear": {"out_features": 24, "bias": False}}}


def test_a_body_without_a_head_and_heads_among_the_parts_of_the_base(index):
    body = proposed(index, shapes_of(index, "timm/resnet50", "fc."))
    assert body is not None
    assert body["replace"] == {"fc": []}
    shapes = shapes_of(index, "timm/resnet50", "fc.") | linear("age", 1, 2048) | linear("sex", 2, 2048)
    recipe = proposed(index, shapes)
    assert recipe is not None
    assert ("prefix" in recipe, list(recipe["heads"])) == (False, ["age", "sex"])


def test_what_is_no_head_of_anything_known_is_proposed_nothing(index):
    assert proposed(index, linear("a", 3, 3)) is None
    deeper = shapes_of(index, "timm/resnet50") | {"layer4.3.conv1.weight": (512, 2048, 1, 1)}
    assert proposed(index, deeper) is None
    strange = shapes_of(index, "timm/resnet50", "fc.") | {"fc.table": (7, 7, 7, 7, 7, 7)}
    assert proposed(index, strange) is None
    assert proposed(index, shapes_of(index, "timm/resnet50")) is None
