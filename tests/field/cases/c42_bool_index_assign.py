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

CASE = dict(report="pytorch/pytorch#126856 (2024)", symptom="x[mask] = value, masks of lower rank, values of rows")


class Put(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(5, 5)
        self.fill = nn.Parameter(torch.randn(5))

    def forward(self, x, ids):
        y = self.l(x)
        y[ids == 0] = self.fill
        y[:, ::2, 1] = -1.0
        y[torch.arange(x.shape[0]), ids[:, 0]] += 3.0
        z = y.clone()
        z[y < -0.5] = 0
        return y, z


@architecture(
    "field/put",
    family="mlp",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", 7, 5)),
            InputSpec(name="ids", dtype="int64", shape=("batch", 7), distribution=Integers(low=0, high=6)),
        )
    ),
)
def put() -> nn.Module:
    """Assignments by mask, step and index."""
    return Put()
