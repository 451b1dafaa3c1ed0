"""Names, options and signatures: what the registry tells without building anything."""

import pytest

from app.architectures.registry import Registry
from app.domain.errors import BuildFailed, InvalidOptions, UnknownArchitecture


def test_every_torchvision_and_timm_model_is_found_by_name(registry: Registry) -> None:
    import timm
    from torchvision.models import list_models

    names = set(registry.names())
    assert {f"torchvision/{name}" for name in list_models()} <= names
    assert {f"timm/{name}" for name in timm.list_models()} <= names
    assert len(names) == len(registry.names())


def test_every_architecture_describes_itself(registry: Registry) -> None:
    catalog = registry.catalog()

    assert [entry.name for entry in catalog] == list(registry.names())
    for entry in catalog:
        declared = {axis.name for axis in entry.signature.axes}
        symbolic = {size for spec in entry.signature.inputs for size in spec.shape if isinstance(size, str)}
        assert entry.signature.inputs, entry.name
        assert declared == symbolic, entry.name
        strict = entry.options_schema.get("else", entry.options_schema)  # a config.json may hold more than options
        assert strict["additionalProperties"] is False, entry.name
        assert entry.family, entry.name
        assert entry.library_version, entry.name


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("resnet50", "torchvision/resnet50"),
        ("torchvision/resnt18", "torchvision/resnet18"),
        ("timm/vit_tiny_patch16", "timm/vit_tiny_patch16_224"),
        ("bert", "transformers/bert"),
        ("Torchvision/ResNet18", "torchvision/resnet18"),
        ("sample/tagged", "sample/tagger"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_ones(registry: Registry, asked: str, first: str) -> None:
    with pytest.raises(UnknownArchitecture) as refused:
        registry.describe(asked)
    assert first in refused.value.extra["nearest"]


@pytest.mark.parametrize("name", ["", "/", "timm/", "torchvision/../resnet18", "x" * 100_000, "\x00", "🦊/🦊"])
def test_a_hostile_name_is_only_unknown(registry: Registry, name: str) -> None:
    with pytest.raises(UnknownArchitecture) as refused:
        registry.describe(name)
    assert len(refused.value.detail) < 300


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torchvision/resnet18", {"num_classes": 10**9}),
        ("torchvision/resnet18", {"num_classes": -1}),
        ("torchvision/resnet18", {"num_classes": 1.5}),
        ("torchvision/resnet18", {"num_classes": True}),
        ("torchvision/resnet18", {"image_size": 10**6}),
        ("torchvision/resnet18", {"image_size": [224, 224, 224]}),
        ("torchvision/resnet18", {"weights": "DEFAULT"}),
        ("torchvision/vit_b_16", {"image_size": 225}),
        ("torchvision/r3d_18", {"frames": 10**6}),
        ("torchvision/fasterrcnn_resnet50_fpn", {"weights_backbone": "DEFAULT"}),
        ("timm/vit_tiny_patch16_224", {"in_chans": 0}),
        ("timm/resnet18", {"pretrained": True}),
        ("transformers/bert", {"hidden_size": -768}),
        ("transformers/bert", {"vocab_size": 10**9}),
        ("transformers/bert", {"num_hidden_layers": 10**6}),
        ("transformers/bert", {"num_hidden_layers": "12"}),
        ("transformers/bert", {"task": "image-classification"}),
        ("transformers/bert", {"attn_implementation": "someone/kernel"}),
        ("transformers/detr", {"backbone": "resnet50", "use_pretrained_backbone": True}),
        ("transformers/clip", {"text_config": {"vocab_size": 10**9}}),
        ("sample/tagger", {"hidden": 10**9}),
        ("sample/tagger", {"unknown": 1}),
    ],
)
def test_options_out_of_bounds_are_refused_before_anything_is_built(
    registry: Registry, name: str, options: dict[str, object]
) -> None:
    with pytest.raises(InvalidOptions):
        registry.resolve(name, options)
    with pytest.raises(InvalidOptions):
        registry.build(name, options)


def test_what_an_option_error_repeats_is_short(registry: Registry) -> None:
    with pytest.raises(InvalidOptions) as refused:
        registry.resolve("torchvision/resnet18", {"num_classes": "9" * 100_000})
    assert len(refused.value.detail) < 500
    assert "num_classes" in refused.value.detail


def test_options_that_do_not_fit_together_fail_in_words(registry: Registry) -> None:
    with pytest.raises((BuildFailed, InvalidOptions), match="hidden"):
        registry.build("transformers/bert", {"hidden_size": 30, "num_attention_heads": 7})


@pytest.mark.parametrize(
    ("name", "options", "shape", "output"),
    [
        ("torchvision/resnet18", {"num_classes": 7}, ("batch", 3, 224, 224), ("batch", 7)),
        ("torchvision/resnet18", {"image_size": [64, 96]}, ("batch", 3, 64, 96), ("batch", 1000)),
        ("torchvision/vit_b_16", {"image_size": 32.0}, ("batch", 3, 32, 32), ("batch", 1000)),
        ("torchvision/r3d_18", {"frames": 8}, ("batch", 3, 8, 112, 112), ("batch", 400)),
        ("timm/resnet18", {"in_chans": 1, "image_size": 32}, ("batch", 1, 32, 32), ("batch", 1000)),
        ("timm/vit_tiny_patch16_224", {"num_classes": 3}, ("batch", 3, 224, 224), ("batch", 3)),
        ("transformers/vit", {"image_size": 32, "num_channels": 1}, ("batch", 1, 32, 32), None),
        ("sample/tagger", {"tags": 4}, ("batch", "sequence"), ("batch", "sequence", 4)),
    ],
)
def test_options_change_the_signature(
    registry: Registry,
    name: str,
    options: dict[str, object],
    shape: tuple[object, ...],
    output: tuple[object, ...] | None,
) -> None:
    signature = registry.resolve(name, options).signature
    assert signature.inputs[0].shape == shape
    if output is not None:
        assert signature.outputs[0].shape == output


def test_a_text_model_declares_ids_masks_and_how_long_a_sequence_may_be(registry: Registry) -> None:
    signature = registry.resolve("transformers/bert", {"vocab_size": 50, "max_position_embeddings": 64}).signature
    ids, mask = signature.inputs
    assert (ids.name, ids.dtype, ids.distribution.model_dump()) == (
        "input_ids",
        "int64",
        {"kind": "integers", "low": 0, "high": 49},
    )
    assert (mask.name, mask.distribution.kind) == ("attention_mask", "mask")
    assert signature.axis("sequence").maximum == 64


def test_the_content_of_a_config_json_is_taken_as_options(registry: Registry) -> None:
    from transformers import BertConfig

    content = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=3).to_dict()
    known = registry.describe("transformers/bert").options_schema["properties"]
    options = {name: value for name, value in content.items() if name in known}
    assert {"architectures", "model_type", "transformers_version", "id2label", "hidden_size"} <= set(options)

    module = registry.build(
        "transformers/bert",
        {**options, "id2label": {"0": "a", "1": "b", "2": "c"}, "task": "sequence-classification"},
    )
    assert module.get_parameter("classifier.weight").shape == (3, 32)
