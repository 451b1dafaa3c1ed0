"""Weights made without a download."""

import torch

from app.architectures.calibration import calibrated_state_dict
from app.architectures.registry import load_registry


def test_calibrated_weights_keep_the_module_versions_that_load_hooks_ask_for() -> None:
    registry = load_registry()
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    state = calibrated_state_dict(registry, "transformers/bert", {**options, "vocab_size": 40})
    module = registry.build("transformers/bert", {**options, "vocab_size": 40})
    assert state._metadata == module.state_dict()._metadata  # type: ignore[attr-defined]
    assert not any(bool((tensor == tensor.flatten()[0]).all()) for tensor in state.values() if tensor.numel() > 99)
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def test_a_norm_that_sees_one_value_per_channel_keeps_its_statistics() -> None:
    state = calibrated_state_dict(load_registry(), "torchvision/ssdlite320_mobilenet_v3_large", {})
    means = {key: value for key, value in state.items() if key.endswith("running_mean")}
    assert bool(means["backbone.features.0.0.1.running_mean"].any())
    assert any(not bool(value.any()) for value in means.values())
