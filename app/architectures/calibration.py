"""Weights that make a network's outputs depend on every layer, without any download.

A freshly initialised network is a blind test object: heads start at zero, deep networks without batch statistics shrink
their outputs to 1e-18. So constant parameters get spread, and batch norms get the statistics of real activations.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from app.architectures.calling import EagerModel, call
from app.architectures.registry import Registry
from app.architectures.sample import sample_inputs


def calibrated_state_dict(
    registry: Registry, name: str, options: dict[str, Any], seed: int = 0
) -> dict[str, torch.Tensor]:
    """A state dict of the architecture with non-degenerate values, reproducible from ``seed``.

    It has the ``_metadata`` that state_dict() leaves: without module versions, load hooks take the keys for old ones.
    """
    torch.manual_seed(seed)
    module = registry.build(name, options, initialised=True)
    _spread(module)
    _calibrate(EagerModel(module, registry.resolve(name, options).signature), seed)
    state = module.state_dict()
    for key, tensor in state.items():
        state[key] = tensor.detach().clone()
    return state


def save_checkpoint(registry: Registry, name: str, options: dict[str, Any], path: Path, seed: int = 0) -> Path:
    """Write the calibrated state dict as ``torch.save`` does in training scripts."""
    torch.save(calibrated_state_dict(registry, name, options, seed), path)
    return path


def _spread(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.is_floating_point() or parameter.numel() == 0:
                continue
            if parameter.dim() >= 2 and bool((parameter == parameter.flatten()[0]).all()):
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
            elif parameter.dim() < 2:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
            else:
                parameter.mul_(1 + 0.02 * torch.randn(()))


def _calibrate(model: EagerModel, seed: int) -> None:
    norms = [norm for norm in model.module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    hooks = [norm.register_forward_pre_hook(_learn_where_there_is_a_variance) for norm in norms]
    sizes = {axis.name: max(axis.sample, 4) if axis.name == "batch" else axis.sample for axis in model.signature.axes}
    for step in range(2):
        generator = torch.Generator().manual_seed(seed + step)
        call(model, sample_inputs(model.signature, sizes, generator))
    for hook in hooks:
        hook.remove()
    model.module.eval()


def _learn_where_there_is_a_variance(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """One value per channel, as at the end of a detector's pyramid, has none, and torch refuses to learn from it."""
    norm.train(inputs[0].numel() > inputs[0].shape[1])
