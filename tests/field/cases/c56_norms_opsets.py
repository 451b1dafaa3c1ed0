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
    report="onnx/onnx#6561 (2024), #5843 (2024), pytorch/pytorch#159249 (2025), ORT#22697 (2024)",
    symptom="GroupNorm, RMSNorm, GELU and SDPA at old and new opsets: no version adapter, or no kernel",
)


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 12, 3, padding=1)
        self.g = nn.GroupNorm(4, 12)
        self.r = nn.RMSNorm(12, eps=1e-6)
        self.l = nn.LayerNorm(12, bias=False)
        self.q = nn.Linear(12, 36)

    def forward(self, image):
        x = F.gelu(self.g(self.c(image)), approximate="tanh").flatten(2).transpose(1, 2)
        q, k, v = self.q(self.r(x)).chunk(3, -1)
        y = F.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), is_causal=True).squeeze(1)
        return self.l(x + F.silu(y)).mean(1)


@architecture(
    "field/norms", family="vision", signature=Signature(inputs=(InputSpec(name="image", shape=("batch", 3, 6, 7)),))
)
def norms() -> nn.Module:
    """Norms of several opsets."""
    return Norms()
