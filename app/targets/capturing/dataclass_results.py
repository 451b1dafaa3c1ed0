"""Dataclasses among a model's results, which torch.jit's tracer does not know, as tuples of their fields."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn


@contextmanager
def dataclasses_opened(module: nn.Module) -> Iterator[None]:
    """Inside, the module gives a tuple in place of each dataclass, without the fields that are None."""
    handle = module.register_forward_hook(lambda _module, _args, result: opened(result) if _holds(result) else None)
    try:
        yield
    finally:
        handle.remove()


def opened(result: Any) -> Any:
    """The result in which each dataclass is a tuple, in the order in which ``flatten`` gives its tensors."""
    if _is_plain_dataclass(result):
        parts = (getattr(result, field.name) for field in fields(result))
        return tuple(opened(part) for part in parts if part is not None)
    if isinstance(result, dict):
        return {key: opened(part) for key, part in result.items()}
    return type(result)(map(opened, result)) if type(result) in (list, tuple) else result


def _holds(result: Any) -> bool:
    if isinstance(result, dict | list | tuple):
        return any(map(_holds, result.values() if isinstance(result, dict) else result))
    return _is_plain_dataclass(result)


def _is_plain_dataclass(value: Any) -> bool:
    """Of transformers' results, dictionaries as well, the tracer knows what they are."""
    return is_dataclass(value) and not isinstance(value, dict | type | Tensor)
