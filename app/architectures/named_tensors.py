"""The tensors of a module by name, and which names stand for one tensor."""

from collections.abc import Mapping

from torch import Tensor, nn


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, then buffers, in the module's order; a tied one under each of its names."""
    parameters: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    return parameters | dict(module.named_buffers(remove_duplicate=False))


def tied_groups(tensors: Mapping[str, Tensor]) -> list[tuple[str, ...]]:
    """Groups of names that stand for one tensor object, each in the order of ``tensors``."""
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(id(tensor), []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]
