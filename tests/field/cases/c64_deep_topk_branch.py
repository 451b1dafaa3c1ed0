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
    report="open-mmlab/mmdeploy#2149 (2023)",
    symptom="nms_pre: only when there are more candidates than 100 the best are taken, else all in their order",
)


class Pre(nn.Module):
    def __init__(self):
        super().__init__()
        self.s = nn.Linear(6, 1)
        self.b = nn.Linear(6, 4)

    def forward(self, x):
        s, b = self.s(x).squeeze(-1), self.b(x)
        if s.shape[1] > 100:
            s, i = s.topk(100, dim=1)
            b = b.gather(1, i.unsqueeze(-1).expand(-1, -1, 4))
        return s.sigmoid(), b


@architecture(
    "field/nms_pre",
    family="detection",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "anchors", 6)),),
        axes=(Axis(name="batch"), Axis(name="anchors", maximum=700, sample=20)),
    ),
)
def nms_pre() -> nn.Module:
    """Candidates before suppression."""
    return Pre()


JUDGE = dict(anchors=[1, 20, 100, 101, 300])
