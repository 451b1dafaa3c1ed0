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
    report="pytorch/vision#2251/#2380 family; open-mmlab/mmdeploy, detectron2 exports",
    symptom="no detection: the code takes a way of its own (a default row), the graph the ordinary one",
)


class Det(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(8, 16)
        self.s = nn.Linear(16, 1)
        self.b = nn.Linear(16, 4)
        self.none = nn.Parameter(torch.ones(4))

    def forward(self, x):
        h = self.l(x).relu()
        keep = (self.s(h).squeeze(-1) > 0).nonzero().squeeze(-1)
        if keep.shape[0] == 0:
            return self.none.unsqueeze(0)
        return self.b(h[keep]).sigmoid().amax(0, keepdim=True) + self.none


@architecture(
    "field/empty",
    family="detection",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("proposals", 8)),), axes=(Axis(name="proposals", minimum=8, sample=20),)
    ),
)
def empty() -> nn.Module:
    """A default where nothing is found."""
    return Det()


def prepare(m):
    with torch.no_grad():
        m.s.bias += 0.4


JUDGE = dict(proposals=[8, 20, 50])


def extra(draw, module):
    """Inputs on which nothing is found."""
    x = torch.cat([draw(proposals=50, seed=1000 + i)["x"] for i in range(20)])
    with torch.no_grad():
        bad = x[(module.s(module.l(x).relu()).squeeze(-1) <= -0.05)]
    return [{"x": bad[:n].clone()} for n in (8, 12) if len(bad) >= n]
