"""Which architecture a file's keys and shapes are of, told from layouts that were found by building few of them."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from app.architectures.layouts import layouts_of
from app.architectures.registry import Registry, load_registry
from app.conversion.key_repair import Shapes
from app.conversion.matching import LayoutIndex
from app.domain.layout_file import dump, load

NAMES = (
    "torchvision/resnet18",
    "torchvision/resnet34",
    "torchvision/vgg11",
    "timm/resnet18",
    "timm/vit_tiny_patch16_224",
)
SMALL = {"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 64, "vocab_size": 99, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.fixture(scope="module")
def index(registry: Registry) -> LayoutIndex:
    """Read back from the document that they are kept as."""
    found = [layout for name in (*NAMES, "transformers/bert") for layout in layouts_of(registry, name)]
    return LayoutIndex([load(json.dumps(dump("test", "1", found)))])


def shapes_of(registry: Registry, name: str, options: Mapping[str, Any], prefix: str = "") -> Shapes:
    state = registry.build(name, options).state_dict()
    return {prefix + key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torchvision/resnet34", {}),
        ("torchvision/resnet18", {"num_classes": 37}),
        ("timm/vit_tiny_patch16_224", {"num_classes": 5, "in_chans": 1, "image_size": 384}),
        ("transformers/bert", SMALL),
        ("transformers/bert", {**SMALL, "task": "sequence-classification", "num_labels": 7}),
        ("transformers/bert", {"task": "question-answering", "num_hidden_layers": 14}),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.", "encoder_q."])
def test_an_architecture_is_recognised_with_the_options_that_make_it_fit(
    registry: Registry, index: LayoutIndex, name: str, options: dict[str, Any], prefix: str
) -> None:
    best = index.rank(shapes_of(registry, name, options, prefix))[0]
    assert best.architecture == name
    assert best.exact
    shown = {option: value for option, value in options.items() if option != "num_attention_heads"}  # acts on no shape
    assert dict(best.options) == shown
    assert best.prefix == (prefix if prefix == "encoder_q." else None)


def test_a_prediction_for_known_options_agrees_with_the_build(registry: Registry, index: LayoutIndex) -> None:
    shapes = shapes_of(registry, "torchvision/resnet18", {"num_classes": 37})
    fits = index.check("torchvision/resnet18", {"num_classes": 37}, shapes)
    assert fits is not None
    assert fits.exact
    assert fits.sentence() == "torchvision/resnet18 with num_classes=37: every tensor fits"
    other = index.check("torchvision/resnet18", {"num_classes": 10}, shapes)
    assert other is not None
    assert other.mismatched == (
        "fc.weight: checkpoint (37, 512), architecture (10, 512)",
        "fc.bias: checkpoint (37,), architecture (10,)",
    )


def test_choices_that_keys_and_shapes_cannot_tell_apart_are_named_together(
    registry: Registry, index: LayoutIndex
) -> None:
    shapes = shapes_of(registry, "transformers/bert", {"task": "masked-lm"})
    assert index.rank(shapes)[0].sentence() == ("transformers/bert with task=causal-lm or masked-lm: every tensor fits")
    asked = index.check("transformers/bert", {"task": "masked-lm"}, shapes)
    assert asked is not None
    assert asked.exact


def test_what_was_not_tried_is_not_told(registry: Registry, index: LayoutIndex) -> None:
    shapes = shapes_of(registry, "transformers/bert", {})
    assert index.check("transformers/bert", {"hidden_act": "relu"}, shapes) is None
    assert index.check("transformers/unknown", {}, shapes) is None


def test_of_equal_architectures_the_one_that_the_file_is_named_after_comes_first(registry: Registry) -> None:
    found = [layout for name in ("torchvision/resnet50", "timm/resnet50") for layout in layouts_of(registry, name)]
    both = LayoutIndex([load(json.dumps(dump("test", "1", found)))])
    shapes = shapes_of(registry, "timm/resnet50", {})
    assert [match.architecture for match in both.rank(shapes)] == ["torchvision/resnet50", "timm/resnet50"]
    assert both.rank(shapes, told="timm-resnet50-birds.safetensors")[0].exact


def test_a_strangers_document_is_refused() -> None:
    good = dump("test", "1", ())
    no_such_place = {
        **{"architecture": "a/b", "chosen": {}, "defaults": {}, "inert": [], "same": {}, "growths": []},
        "places": [0, 0],
    }
    for spoiled in (
        {**good, "keys": [1]},
        {**good, "tensors": [[["64"], "float", False]]},
        {**good, "layouts": [no_such_place]},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - also pydantic's own
            load(json.dumps(spoiled))
