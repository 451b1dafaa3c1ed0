"""A forward that exporters can follow: the signature's inputs and nothing else, a plain dictionary of tensors out."""

import inspect
from types import MethodType
from typing import Any

from torch import Tensor, nn


def narrow_forward(module: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> nn.Module:
    """The same module, its forward taking just ``inputs`` and returning just ``outputs``.

    Without ``outputs`` it returns every tensor of the result; tuples of tensors only where there is nothing else.

    transformers' own forward methods have dozens of optional parameters, which exporters that call by position cannot
    skip, and return caches and nested results beside the tensors. State-dict names do not change.
    """

    def forward(self: nn.Module, *args: Tensor, **kwargs: Tensor) -> dict[str, Any]:
        given = dict(zip(inputs, args, strict=False)) | kwargs
        result = type(self).forward(self, **given)
        if outputs:
            return {name: result[name] for name in outputs}
        tensors: dict[str, Any] = {name: value for name, value in result.items() if isinstance(value, Tensor)}
        return tensors or {name: value for name, value in result.items() if isinstance(value, tuple)}

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=Tensor) for name in inputs]
    shown = inspect.Signature([inspect.Parameter("self", kind), *parameters], return_annotation=dict[str, Tensor])
    forward.__signature__ = shown  # type: ignore[attr-defined]
    module.forward = MethodType(forward, module)
    return module
