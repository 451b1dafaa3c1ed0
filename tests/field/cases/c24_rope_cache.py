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
    report="neuralmagic/sparseml#1826 (2023), lucidrains/x-transformers#212 (2023)",
    symptom="rotary tables kept for the longest sequence seen; longer ones need new tables, the graph has the old",
)


class Rope(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(16, 16)
        self.k = nn.Linear(16, 16)
        self.register_buffer("inv", 1.0 / (100 ** (torch.arange(0, 16, 2).float() / 16)), persistent=False)
        self.seen = 0
        self.tables(8)

    def tables(self, n):
        self.seen = n
        f = torch.outer(torch.arange(n).float(), self.inv)
        e = torch.cat([f, f], -1)
        self.cos, self.sin = e.cos(), e.sin()

    def turn(self, x, n):
        a, b = x.chunk(2, -1)
        return x * self.cos[:n] + torch.cat([-b, a], -1) * self.sin[:n]

    def forward(self, x):
        n = x.shape[1]
        if n > self.seen:
            self.tables(n)
        q, k = self.turn(self.q(x), n), self.turn(self.k(x), n)
        return (q @ k.transpose(1, 2) / 4).softmax(-1) @ x


@architecture(
    "field/rope_cache",
    family="transformer",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 16)),),
        axes=(Axis(name="batch"), Axis(name="length", maximum=256, sample=6)),
    ),
)
def rope_cache() -> nn.Module:
    """Rotary embedding with grown tables."""
    return Rope()


JUDGE = dict(length=[1, 6, 7, 8, 9, 30, 100])
