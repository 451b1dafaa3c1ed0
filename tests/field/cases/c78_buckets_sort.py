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
    report="tabular nets (bucketize, searchsorted, one_hot, stable sort); pytorch export requests",
    symptom="values on a boundary, ties in sort, ids at the ends",
)


class Tab(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("edges", torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]))
        self.e = nn.Embedding(6, 5)
        self.o = nn.Linear(12, 3)

    def forward(self, x, kinds):
        b = torch.bucketize(x, self.edges)
        r = torch.bucketize(x, self.edges, right=True)
        h = F.one_hot(kinds, 7).float().mean(1)
        s, i = kinds.sort(dim=1, stable=True)
        y = torch.cat([self.e(b).mean(1), h], -1)
        return self.o(y) + self.o.bias * r.float().mean(1, keepdim=True), s, i


@architecture(
    "field/tab",
    family="tabular",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", 4)),
            InputSpec(name="kinds", dtype="int64", shape=("batch", 9), distribution=Integers(low=0, high=6)),
        )
    ),
)
def tab() -> nn.Module:
    """Buckets and ties."""
    return Tab()


def extra(draw):
    a = draw(batch=3)
    a["x"][:] = torch.tensor([-1.0, 0.0, 0.5, 1.0])
    a["kinds"][:] = 3
    return [a]
