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
    report="pytorch/pytorch#147617, #106373, #152419; pyg-team/pytorch_geometric#8415",
    symptom="scatter_reduce (max, mean, include_self=False) of a graph net gives other values after export, nodes without edges above all",
)


class Gnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 8)
        self.b = nn.Linear(24, 4)

    def forward(self, nodes, edges):
        m = self.a(nodes)[edges[0]]
        i = edges[1].unsqueeze(-1).expand_as(m)
        z = m.new_zeros(nodes.shape[0], 8)
        top = z.scatter_reduce(0, i, m, "amax", include_self=False)
        avg = z.scatter_reduce(0, i, m, "mean", include_self=False)
        add = z.index_add(0, edges[1], m)
        return self.b(torch.cat([top, avg, add], -1))


@architecture(
    "field/gnn",
    family="graph",
    signature=Signature(
        inputs=(
            InputSpec(name="nodes", shape=(12, 5)),
            InputSpec(name="edges", dtype="int64", shape=(2, "edges"), distribution=Integers(low=0, high=11)),
        ),
        axes=(Axis(name="edges", sample=9),),
    ),
)
def gnn() -> nn.Module:
    """Message passing."""
    return Gnn()


JUDGE = dict(edges=[1, 4, 9, 60])
