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
