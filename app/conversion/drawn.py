"""Tensors that an architecture draws at random and keeps where no checkpoint can bring them.

A projection from ``torch.randn`` in a plain attribute, or in a buffer outside of the state dict, is another one in
every process: the artifact would compute with numbers that the trained model never saw. Building the architecture from
another seed tells such tensors from tables.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from app.conversion.verification.ledger.sources import raw_bytes, same_bytes

OTHER_SEED = 1
_DEEPEST = 3
"""Lists and dictionaries in one another in which a tensor is looked for."""


def drawn(kept: Mapping[str, Tensor], build: Callable[[int], nn.Module]) -> tuple[str, ...]:
    """Names of the tensors that come out otherwise where ``build`` has OTHER_SEED.

    ``kept``: copies of what the module had beside its state dict when it was built; where that is nothing, nothing is
    built again.
    """
    if not kept:
        return ()
    again = beside_state(build(OTHER_SEED))
    return tuple(name for name, tensor in kept.items() if name in again and not _same(tensor, again[name]))


def beside_state(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of more than one element that no state dict holds, nor the memory of one that it holds, by path."""
    state = [tensor for tensor in module.state_dict(keep_vars=True).values() if isinstance(tensor, Tensor)]
    own = {id(tensor) for tensor in state}
    memory = {tensor.untyped_storage().data_ptr() for tensor in state if _has_memory(tensor)}
    return {
        path: tensor
        for path, tensor in _kept(module)
        if id(tensor) not in own and _has_memory(tensor) and tensor.untyped_storage().data_ptr() not in memory
    }


def _kept(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        yield from ((f"{prefix}{key}", buffer) for key, buffer in part._buffers.items() if buffer is not None)
        attributes = ((key, value) for key, value in vars(part).items() if key not in ("_parameters", "_buffers"))
        yield from _tensors(attributes, prefix, 0)


def _tensors(values: Iterable[tuple[object, object]], prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    for key, value in values:
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, list | tuple) and depth < _DEEPEST:
            yield from _tensors(enumerate(value), f"{prefix}{key}.", depth + 1)
        elif isinstance(value, dict) and depth < _DEEPEST:
            yield from _tensors(value.items(), f"{prefix}{key}.", depth + 1)


def _has_memory(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and _telling(tensor)


def _telling(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.numel() > 1 and not tensor.is_quantized


def _same(left: Tensor, right: Tensor) -> bool:
    return (left.dtype, left.shape) == (right.dtype, right.shape) and same_bytes(raw_bytes(left), raw_bytes(right))
