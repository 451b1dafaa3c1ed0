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
    report="huggingface/optimum#1257 (2023), KevinAHM/pocket-tts-onnx-export#4 (2026)",
    symptom="decoder with past keys: the first step has a past of length 0, which the graph does not take",
)


class Dec(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(30, 16)
        self.qkv = nn.Linear(16, 48)
        self.pos = nn.Embedding(64, 16)
        self.start = nn.Parameter(torch.ones(16))
        self.o = nn.Linear(16, 30)

    def forward(self, ids, past_key, past_value):
        p, t = past_key.shape[2], ids.shape[1]
        x = self.emb(ids) + self.pos(torch.arange(p, p + t))
        if p == 0:
            x = x + self.start
        q, k, v = self.qkv(x).view(ids.shape[0], t, 3, 2, 8).permute(2, 0, 3, 1, 4)
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
        mask = torch.ones(t, p + t, dtype=torch.bool).tril(p)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o(y.transpose(1, 2).reshape(ids.shape[0], t, 16)), k, v


@architecture(
    "field/kv_cache",
    family="transformer",
    signature=Signature(
        inputs=(
            InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=29)),
            InputSpec(name="past_key", shape=("batch", 2, "past", 8)),
            InputSpec(name="past_value", shape=("batch", 2, "past", 8)),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=16, sample=3),
            Axis(name="past", minimum=0, maximum=40, sample=5),
        ),
    ),
)
def kv_cache() -> nn.Module:
    """One decoder layer with a cache; the first step is marked."""
    return Dec()


JUDGE = dict(length=[1, 3, 8], past=[0, 1, 5, 30])
