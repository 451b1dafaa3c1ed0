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
    report="pytorch/pytorch#148886 (2025)",
    symptom="greedy decoding in the graph (PARSeq-like): fixed batch, loop with early stop",
)


class Greedy(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(10, 16)
        self.emb = nn.Embedding(12, 16)
        self.cell = nn.GRUCell(16, 16)
        self.o = nn.Linear(16, 12)

    def forward(self, x):
        h = self.enc(x).tanh()
        tok = torch.zeros(x.shape[0], dtype=torch.long)
        out = []
        for _ in range(6):
            h = self.cell(self.emb(tok), h)
            z = self.o(h)
            tok = z.argmax(-1)
            out.append(z)
            if (tok == 11).all():
                break
        while len(out) < 6:
            out.append(torch.zeros_like(z))
        return torch.stack(out, 1)


@architecture("field/greedy", family="ocr", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 10)),)))
def greedy() -> nn.Module:
    """Greedy decoder with early stop."""
    return Greedy()
