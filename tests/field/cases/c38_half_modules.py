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
    report="pytorch/pytorch#190338 (2026), #143643 (2024)",
    symptom="model in half precision: layer norm with mixed types, bfloat16 without kernels on CPU",
)


class Half(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.e = nn.Embedding(30, 16, dtype=dtype)
        self.n = nn.LayerNorm(16, dtype=dtype)
        self.a = nn.Linear(16, 32, dtype=dtype)
        self.b = nn.Linear(32, 5, dtype=dtype)

    def forward(self, ids):
        x = self.n(self.e(ids))
        return self.b(F.gelu(self.a(x))).float()


@architecture(
    "field/half",
    family="transformer",
    signature=Signature(
        inputs=(
            InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=29)),
        ),
        axes=(Axis(name="batch"), Axis(name="length", sample=6)),
    ),
)
def half(kind: str = "float16") -> nn.Module:
    """A net in half precision."""
    return Half(getattr(torch, kind if kind in ("float16", "bfloat16") else "float32"))


JUDGE = dict(length=[1, 6, 20])
VARIANTS = [{}, {"kind": "bfloat16"}]
