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
    report="memory-saving chunking in forward (SAM/diffusion); ccdv-ai/convert_checkpoint_to_lsg#15 kind",
    symptom="split of rows in chunks of 32: number of chunks follows the size",
)


class Chunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 6)

    def forward(self, x):
        parts = [self.l(p) - p.mean(1, keepdim=True) for p in x.split(32, dim=1)]
        return torch.cat(parts, 1).tanh()


@architecture(
    "field/chunk",
    family="mlp",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "points", 6)),),
        axes=(Axis(name="batch"), Axis(name="points", maximum=500, sample=10)),
    ),
)
def chunk() -> nn.Module:
    """Work in chunks of 32."""
    return Chunk()


JUDGE = dict(points=[1, 10, 32, 33, 64, 100, 500])
