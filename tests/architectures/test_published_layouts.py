"""Files in the layouts that libraries publish, which differ from their modules' own state dicts."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from app.architectures.registry import Registry
from app.conversion.checkpoint import open_checkpoint
from app.conversion.loading import LoadedModule, load_module
from app.domain.errors import InvalidOptions, KeyMismatch, UnknownArchitecture
from tests.conversion.corpus import saved

TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 100}
EXPERTS = {**TEXT, "num_key_value_heads": 2, "task": "causal-lm"}
IMAGE = {**{name: TEXT[name] for name in TEXT if name != "vocab_size"}, "image_size": 32, "patch_size": 8}
AUDIO = {
    **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
    **{"conv_dim": [32, 32], "conv_kernel": [10, 3], "conv_stride": [5, 2]},
    **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
}
SAVED: dict[str, dict[str, Any]] = {
    "mixtral": {**EXPERTS, "num_local_experts": 4},
    "qwen2_moe": {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "jamba": {**EXPERTS, "num_experts": 4, "use_mamba_kernels": False},
    "vit": {**IMAGE, "task": "image-classification"},
    "swin": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "image_size": 32, "window_size": 4},
    "dinov2": {name: IMAGE[name] for name in IMAGE if name != "intermediate_size"},
    "segformer": {
        **{"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2]},
        **{"decoder_hidden_size": 16, "task": "image-classification"},
    },
    "gpt_neox": {**TEXT, "task": "causal-lm"},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 100},
    "bert": {**TEXT, "task": "masked-lm"},
    "wav2vec2": AUDIO,
}


def loaded_from(registry: Registry, name: str, path: Path, options: dict[str, Any]) -> LoadedModule:
    opened = open_checkpoint(path)
    made = load_module(registry, name, options, opened, strict=True, prefix=None)
    assert sum(t.nbytes for t in made.uploaded.values()) == sum(t.nbytes for t in opened.state_dict.values())
    return made


@pytest.mark.parametrize("model_type", SAVED)
def test_what_save_pretrained_writes_loads_with_its_config_json_as_it_is(
    registry: Registry, tmp_path: Path, model_type: str
) -> None:
    name, options = f"transformers/{model_type}", SAVED[model_type]
    module: Any = registry.build(name, options, initialised=True)
    del module.forward
    module.save_pretrained(tmp_path)
    task = {"task": options["task"]} if "task" in options else {}
    config = json.loads((tmp_path / "config.json").read_text())
    made = loaded_from(registry, name, tmp_path / "model.safetensors", {**config, **task})
    held = made.module.state_dict()
    assert all(value.equal(held[key]) for key, value in module.state_dict().items())


def test_a_state_dict_of_the_module_itself_still_loads_where_the_library_saves_another(
    registry: Registry, tmp_path: Path
) -> None:
    module = registry.build("transformers/mixtral", SAVED["mixtral"], initialised=True)
    made = loaded_from(
        registry, "transformers/mixtral", saved(module.state_dict(), tmp_path / "w.pt"), SAVED["mixtral"]
    )
    assert made.report.conversions == ()


def test_a_saved_file_with_another_number_of_labels_is_refused_with_the_option_that_fits(
    registry: Registry, tmp_path: Path
) -> None:
    module: Any = registry.build("transformers/vit", {**SAVED["vit"], "num_labels": 7}, initialised=True)
    del module.forward
    module.save_pretrained(tmp_path)
    with pytest.raises(KeyMismatch) as refused:
        loaded_from(registry, "transformers/vit", tmp_path / "model.safetensors", {**SAVED["vit"], "num_labels": 2})
    assert refused.value.told_hint == (
        'transformers/vit with num_labels=7: every tensor fits. Ask for architecture_options={"num_labels":7}.'
    )


def test_every_configuration_that_transformers_writes_is_admitted_as_it_is(registry: Registry) -> None:
    from transformers import CONFIG_MAPPING

    refused = {}
    for name in registry.names():
        if name.startswith("transformers/"):
            written = json.loads(CONFIG_MAPPING[name.partition("/")[2]]().to_json_string(use_diff=False))
            try:
                registry.resolve(name, written)
            except InvalidOptions as error:
                refused[name] = error.detail
    assert refused == {}


def test_members_of_a_config_json_that_this_library_does_not_know_are_admitted_and_typos_are_not(
    registry: Registry,
) -> None:
    old = {"gradient_checkpointing": False, "position_embedding_type": "absolute", "torch_dtype": "float16"}
    registry.resolve("transformers/bert", {"model_type": "bert", **old, "architectures": ["BertModel"], **TEXT})
    with pytest.raises(InvalidOptions) as refused:
        registry.resolve("transformers/bert", {"hiden_size": 32})
    assert str(refused.value.told_hint).startswith("Did you mean hidden_size?")
    with pytest.raises(InvalidOptions, match="model_type"):
        registry.resolve("transformers/bert", {"model_type": "roberta"})
    with pytest.raises(InvalidOptions, match="quantization_config"):
        registry.resolve("transformers/bert", {"model_type": "bert", "quantization_config": {"bits": 4}})
    with pytest.raises(InvalidOptions, match="too large"):
        registry.resolve("transformers/bert", {"model_type": "bert", "window_sizes": [2**30]})


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize(
    ("name", "pattern", "published"),
    [
        ("torchvision/densenet121", r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2."),
        ("torchvision/vit_b_16", r"mlp\.(0|3)\.", lambda m: f"mlp.linear_{1 + int(m[1]) // 3}."),
        ("timm/swin_tiny_patch4_window7_224", r"head\.fc\.|layers\.(\d+)\.down", lambda m: swin_name(m)),
    ],
)
def test_published_files_of_torchvision_and_timm_load(
    registry: Registry, tmp_path: Path, name: str, pattern: str, published: Any, wrapper: str
) -> None:
    module = registry.build(name, {}, initialised=True)
    state = {wrapper + re.sub(pattern, published, key): value for key, value in module.state_dict().items()}
    made = loaded_from(registry, name, saved(state, tmp_path / "w.pt"), {})
    held = made.module.state_dict()
    assert all(value.equal(held[key]) for key, value in module.state_dict().items())
    assert made.report.conversions


def swin_name(match: "re.Match[str]") -> str:
    """As Microsoft's Swin names it: each stage's reduction stands at its end."""
    return "head." if match[1] is None else f"layers.{int(match[1]) - 1}.down"


def test_a_timm_name_with_a_tag_has_the_defaults_of_its_published_weights(registry: Registry) -> None:
    described = registry.describe("timm/vit_base_patch16_384.augreg_in21k_ft_in1k")
    assert described.signature.inputs[0].shape == ("batch", 3, 384, 384)
    assert registry.describe("timm/resnet18.a1_in1k").options_schema["properties"]["num_classes"]["default"] == 1000
    with pytest.raises(UnknownArchitecture):
        registry.describe("timm/resnet18.no_such_tag")


@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe"])
def test_mixtures_of_experts_are_captured_for_any_batch(registry: Registry, model_type: str) -> None:
    name, options = f"transformers/{model_type}", SAVED[model_type]
    module = registry.build(name, options, initialised=True)
    tokens, mask = torch.randint(100, (2, 5)), torch.ones(2, 5, dtype=torch.int64)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module,
            (),
            {"input_ids": tokens, "attention_mask": mask},
            dynamic_shapes={"input_ids": {0: batch}, "attention_mask": {0: batch}},
            strict=False,
        )
        tokens, mask = torch.randint(100, (3, 5)), torch.ones(3, 5, dtype=torch.int64)
        given = {"input_ids": tokens, "attention_mask": mask}
        assert torch.allclose(program.module()(**given)["logits"], module(**given)["logits"], atol=1e-5)
    assert "histc" not in str(program.graph)
