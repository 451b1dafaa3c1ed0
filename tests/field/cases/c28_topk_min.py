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
    report="open-mmlab/mmdeploy#2149 (2023), pytorch/vision#5310",
    symptom="min(k, number of candidates) is Python's and frozen: beyond k the graph gives all of them",
)


class Top(nn.Module):
    def __init__(self):
        super().__init__()
        self.s = nn.Linear(6, 1)
        self.b = nn.Linear(6, 4)

    def forward(self, x):
        s = self.s(x).squeeze(-1)
        k = min(50, x.shape[1])
        v, i = s.topk(k, dim=1)
        return v.sigmoid(), self.b(x).gather(1, i.unsqueeze(-1).expand(-1, -1, 4))


@architecture(
    "field/topk_min",
    family="detection",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "anchors", 6)),),
        axes=(Axis(name="batch"), Axis(name="anchors", maximum=2000, sample=20)),
    ),
)
def topk_min() -> nn.Module:
    """The best 50 of the anchors."""
    return Top()


JUDGE = dict(anchors=[1, 20, 49, 50, 51, 100, 900])
