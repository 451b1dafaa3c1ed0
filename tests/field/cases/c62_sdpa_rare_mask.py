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
    symptom="as c05, but rows are long: a wholly masked row is admissible and rare",
)


class Att(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(6, 24)
        self.qkv = nn.Linear(24, 72)
        self.o = nn.Linear(24, 4)

    def forward(self, x, keep):
        b, t = keep.shape
        q, k, v = self.qkv(self.inp(x)).view(b, t, 3, 4, 6).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep.bool()[:, None, None, :])
        return self.o(y.transpose(1, 2).reshape(b, t, 24))


@architecture(
    "field/sdpa_rare",
    family="transformer",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", "length", 6)),
            InputSpec(name="keep", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=1)),
        ),
        axes=(Axis(name="batch"), Axis(name="length", minimum=16, sample=24)),
    ),
)
def sdpa_rare() -> nn.Module:
    """Attention under an arbitrary key mask, long rows."""
    return Att()


JUDGE = dict(length=[16, 24, 60])


def extra(draw):
    x = draw(batch=3, length=20)
    x["keep"][1] = 0
    return [x]
