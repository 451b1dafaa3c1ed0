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
    report="similarity heads; optimiser-made LpNormalization (onnx issues on zero vectors)",
    symptom="zero rows, missing values (NaN), masked softmax: eager is finite, the graph not",
)


class Sim(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 8, bias=False)
        self.p = nn.Parameter(torch.randn(5, 8))
        self.default = nn.Parameter(torch.zeros(6))

    def forward(self, x):
        x = torch.where(torch.isnan(x), self.default, x)
        h = self.l(x)
        a = F.normalize(h, dim=-1) @ F.normalize(self.p, dim=-1).t()
        b = F.cosine_similarity(h.unsqueeze(1), self.p.unsqueeze(0), dim=-1)
        c = h / h.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        return a, b, c, torch.logsumexp(h.masked_fill(h < 0, float("-inf")), -1)


@architecture("field/sim", family="retrieval", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 6)),)))
def sim() -> nn.Module:
    """Cosine scores of rows with gaps."""
    return Sim()


def extra(draw):
    a = draw(batch=3)
    a["x"][1] = 0
    b = draw(batch=3)
    b["x"][0, 2] = float("nan")
    b["x"][2] = float("nan")
    return [a, b]
