import math
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from recast_plugins import (
    Axis,
    Field,
    InputSpec,
    Integers,
    Mask,
    Normal,
    OutputSpec,
    Signature,
    Uniform,
    architecture,
)

CASE = dict(
    report="pytorch/pytorch#182266 kind; optimum optional outputs",
    symptom="TorchScript of a model whose dictionary holds None",
)


class DictNone(nn.Module):
    def __init__(self):
        super().__init__()
        self.b = nn.Linear(6, 3)

    def forward(self, x):
        return {"logits": self.b(x), "loss": None}


@architecture("field/dict_none", family="mlp", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 6)),)))
def dict_none() -> nn.Module:
    """logits and no loss."""
    return DictNone()
