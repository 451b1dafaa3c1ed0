"""transformers: what is declared is what the library's classes take and give."""

import inspect
from typing import Any

import pytest
import torch

from app.architectures.calling import EagerModel, call
from app.architectures.registry import Registry
from app.architectures.sample import sample_inputs
from app.domain.errors import InvalidOptions

TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 100}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
BART = {"d_model": 32, "vocab_size": 100, "encoder_layers": 1, "decoder_layers": 1}
VIT = {**{name: TEXT[name] for name in TEXT if name != "vocab_size"}, "image_size": 32}

RUNS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("bert", TEXT, ["last_hidden_state", "pooler_output"]),
    ("bert", {**TEXT, "task": "masked-lm"}, ["logits"]),
    ("bert", {**TEXT, "task": "sequence-classification", "num_labels": 5}, ["logits"]),
    ("bert", {**TEXT, "task": "question-answering"}, ["start_logits", "end_logits"]),
    ("roberta", {**TEXT, "max_position_embeddings": 18, "task": "token-classification"}, ["logits"]),
    ("canine", {name: TEXT[name] for name in TEXT if name != "vocab_size"}, ["last_hidden_state", "pooler_output"]),
    (
        "fnet",
        {name: TEXT[name] for name in TEXT if name != "num_attention_heads"},
        ["last_hidden_state", "pooler_output"],
    ),
    ("xlnet", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "vocab_size": 100}, ["last_hidden_state"]),
    ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100, "task": "causal-lm"}, ["logits"]),
    ("llama", {**TEXT, "num_key_value_heads": 2, "task": "causal-lm"}, ["logits"]),
    ("t5", T5, ["last_hidden_state", "encoder_last_hidden_state"]),
    ("t5", {**T5, "task": "seq2seq-lm"}, ["logits"]),
    ("t5", {**T5, "task": "question-answering", "decoder_start_token_id": 0}, ["start_logits", "end_logits"]),
    ("bart", {**BART, "task": "question-answering"}, ["start_logits", "end_logits"]),
    ("bart", {**BART, "task": "causal-lm"}, ["logits"]),
    ("vit", {**VIT, "task": "image-classification"}, ["logits"]),
    ("deit", {**VIT, "task": "image-classification"}, ["logits"]),
    ("resnet", {"image_size_used": 64}, ["last_hidden_state", "pooler_output"]),
    ("wav2vec2", {**TEXT, "samples": 4000, "task": "ctc"}, ["logits"]),
    (
        "clip",
        {
            "text_config": {**TEXT, "max_position_embeddings": 20},
            "vision_config": {**VIT, "patch_size": 16},
            "projection_dim": 16,
        },
        ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"],
    ),
]


@pytest.mark.parametrize(("model_type", "options", "outputs"), RUNS)
def test_models_run_on_what_their_signature_declares(
    registry: Registry, model_type: str, options: dict[str, Any], outputs: list[str]
) -> None:
    name = f"transformers/{model_type}"
    signature = registry.resolve(name, options).signature
    module = registry.build(name, options, initialised=True)
    for batch in (1, 3):
        inputs = sample_inputs(signature, {"batch": batch}, torch.Generator().manual_seed(0))
        results = call(EagerModel(module, signature), inputs)
        assert list(results) == outputs
        assert all(tensor.shape[0] == batch for tensor in results.values())


def test_a_sequence_may_be_as_long_as_declared_and_no_longer(registry: Registry) -> None:
    options = {**TEXT, "max_position_embeddings": 18, "pad_token_id": 1}
    signature = registry.resolve("transformers/roberta", options).signature
    assert signature.axis("sequence").maximum == 16
    module = registry.build("transformers/roberta", options, initialised=True)
    generator = torch.Generator().manual_seed(0)
    call(EagerModel(module, signature), sample_inputs(signature, {"sequence": 16}, generator))
    ids = torch.full((1, 17), 5)
    with pytest.raises((IndexError, RuntimeError)):
        call(EagerModel(module, signature), {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def test_a_classifier_of_text_that_cannot_tell_padding_is_refused_in_words(registry: Registry) -> None:
    options = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100, "task": "sequence-classification"}
    with pytest.raises(InvalidOptions, match="pad_token_id"):
        registry.resolve("transformers/gpt2", options)
    assert registry.resolve("transformers/gpt2", {**options, "pad_token_id": 0}).signature.inputs


def test_every_declared_input_is_one_that_the_library_takes(registry: Registry) -> None:
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    wrong = {}
    for name in registry.names():
        if name.startswith("transformers/"):
            classes = MODEL_MAPPING[CONFIG_MAPPING[name.removeprefix("transformers/")]]
            taken = inspect.signature((classes[0] if isinstance(classes, tuple) else classes).forward).parameters
            declared = {spec.name for spec in registry.describe(name).signature.inputs}
            required = {
                parameter.name
                for parameter in taken.values()
                if parameter.default is parameter.empty
                and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
                and parameter.name != "self"
            }
            if not required <= declared <= set(taken):
                wrong[name] = sorted(declared), sorted(required)
    assert wrong == {}


def test_the_forward_that_exporters_see_has_the_declared_inputs_only(registry: Registry) -> None:
    module = registry.build("transformers/bert", TEXT)
    assert list(inspect.signature(module.forward).parameters) == ["input_ids", "attention_mask"]
    assert "embeddings.word_embeddings.weight" in module.state_dict()
