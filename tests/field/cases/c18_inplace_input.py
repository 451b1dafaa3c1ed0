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
    report="pytorch/pytorch#113945 (2023), #108432 (2023)",
    symptom="forward writes into its input: the trace's check or first run is wrong",
)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(8, 8)
        self.register_buffer("mean", torch.arange(8.0) / 10)

    def forward(self, x):
        x -= self.mean
        x[:, 0] = 0
        x[x > 2] = 2
        y = self.l(x)
        y[:, 1:3] += x[:, 3:5]
        return y


@architecture("field/inplace", family="mlp", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 8)),)))
def inplace() -> nn.Module:
    """Writes into its input."""
    return InPlace()
