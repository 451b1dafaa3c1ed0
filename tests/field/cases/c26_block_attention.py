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
    report="ccdv-ai/convert_checkpoint_to_lsg#15 (2026)",
    symptom="block-sparse attention takes the plain way for short inputs and blocks for long ones; the graph keeps the way of the sample",
)


class Lsg(nn.Module):
    def __init__(self, block: int):
        super().__init__()
        self.emb = nn.Embedding(50, 16)
        self.qkv = nn.Linear(16, 48)
        self.o = nn.Linear(16, 5)
        self.block = block

    def forward(self, ids):
        x = self.emb(ids)
        q, k, v = self.qkv(x).chunk(3, -1)
        t = ids.shape[1]
        far = 0.0 if t <= 2 * self.block else 1.0  # long inputs: scores fall off with distance
        d = (torch.arange(t)[:, None] - torch.arange(t)[None]).abs().float()
        s = q @ k.transpose(1, 2) / 4 - far * d / self.block
        return self.o((s.softmax(-1) @ v).mean(1))


@architecture(
    "field/lsg",
    family="transformer",
    signature=Signature(
        inputs=(
            InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=49)),
        ),
        axes=(Axis(name="batch"), Axis(name="length", maximum=512, sample=16)),
    ),
)
def lsg(block: int = 32) -> nn.Module:
    """Attention that falls off with distance where the input is long."""
    return Lsg(block)


JUDGE = dict(length=[1, 16, 64, 65, 100, 300])
