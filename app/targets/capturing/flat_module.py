"""The module as the ONNX exporters see it: tensors in by position, a flat tuple of tensors out."""

from typing import Any

import torch
from torch import nn

from app.architectures.calling import EagerModel, bind, flatten

PREFIX = "module."
"""What wrapping puts before every state-dict key; captures take it off again."""


class FlatModule(nn.Module):
    """Takes the signature's inputs by position and returns the named outputs as a tuple.

    Both exporters flatten dictionaries, dataclasses and nested tuples in ways of their own, and pass keyword arguments
    in ways of their own; here it is decided once, by the same functions that run the module for verification.
    """

    def __init__(self, model: EagerModel) -> None:
        super().__init__()
        self.module = model.module
        self._signature = model.signature
        self.train(model.module.training)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = dict(zip((spec.name for spec in self._signature.inputs), inputs, strict=True))
        args, kwargs = bind(EagerModel(self.module, self._signature), named)
        result: Any = self.module(*args, **kwargs)
        outputs = flatten(result, self._signature)
        self.output_names = tuple(outputs)
        return tuple(outputs.values())
