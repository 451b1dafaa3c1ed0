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
    report="pytorch/TensorRT#2152 (2023), pytorch/pytorch#30899",
    symptom="Embedding(max_norm) rescales its weights in place while it is read",
)


class Emb(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(20, 8, max_norm=1.0)
        self.o = nn.Linear(8, 3)

    def forward(self, ids):
        return self.o(self.e(ids).mean(1))


@architecture(
    "field/max_norm",
    family="text",
    signature=Signature(
        inputs=(InputSpec(name="ids", dtype="int64", shape=("batch", 5), distribution=Integers(low=0, high=19)),)
    ),
)
def max_norm() -> nn.Module:
    """Norm-bounded embedding."""
    return Emb()
