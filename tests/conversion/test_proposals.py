"""What is proposed for a file of which only keys and shapes are known."""

import torch

from app.architectures.registry import Registry, load_registry
from app.conversion.key_repair import MOST_STACKS, readings
from app.conversion.proposals import Fit, fit_of, propose_options


def shapes_of(registry: Registry, name: str, options: dict[str, object]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in registry.build(name, options).state_dict().items()}


def test_the_option_that_makes_a_ranked_architecture_fit_is_found() -> None:
    registry = load_registry()
    tensors = shapes_of(registry, "timm/resnet18", {"num_classes": 37, "in_chans": 1})
    plain = fit_of(registry, "timm/resnet18", {}, tensors)
    assert isinstance(plain, Fit)
    found = propose_options(registry, "timm/resnet18", plain, tensors, ())
    assert found.exact
    assert found.options == {"num_classes": 37, "in_chans": 1}


def test_however_many_wrappers_a_file_mixes_few_readings_are_tried() -> None:
    wrappers = ("module", "model", "net", "_orig_mod")
    keys = [
        f"{a}.{b}.{c}.{d}.p{index}"
        for index, (a, b, c, d) in enumerate(
            (a, b, c, d) for a in wrappers for b in wrappers for c in wrappers for d in wrappers
        )
    ]
    assert len(readings(keys, None)) <= 2 * (MOST_STACKS + 1)
