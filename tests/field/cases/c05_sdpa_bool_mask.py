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
    report="microsoft/onnxscript#2479, #2992",
    symptom="boolean attention mask whose row is wholly masked: eager gives zeros, exported graph NaN",
)


class Att(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(40, 24)
        self.qkv = nn.Linear(24, 72)
        self.o = nn.Linear(24, 24)

    def forward(self, ids, keep):
        b, t = ids.shape
        q, k, v = self.qkv(self.emb(ids)).view(b, t, 3, 4, 6).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep.bool()[:, None, None, :])
        return self.o(y.transpose(1, 2).reshape(b, t, 24))


@architecture(
    "field/sdpa_mask",
    family="transformer",
    signature=Signature(
        inputs=(
            InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=39)),
            InputSpec(name="keep", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=1)),
        ),
        axes=(Axis(name="batch"), Axis(name="length", sample=9)),
    ),
)
def sdpa_mask() -> nn.Module:
    """Attention under an arbitrary key mask."""
    return Att()


JUDGE = dict(length=[1, 2, 5, 9, 30])


def extra(draw):
    x = draw(batch=3, length=6)
    x["keep"][1] = 0
    return [x]
