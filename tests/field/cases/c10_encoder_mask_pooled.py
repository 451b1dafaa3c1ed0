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
    report="pytorch/pytorch#97111 (2023), pooled",
    symptom="as c09, but padding is pooled away, so that both ways agree where it counts",
)


class Enc(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(30, 24)
        self.enc = nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 4, 48, dropout=0.1, batch_first=True), 2)
        self.o = nn.Linear(24, 5)

    def forward(self, ids, mask):
        x = self.enc(self.emb(ids), src_key_padding_mask=mask == 0)
        return self.o(x[:, 0])


@architecture(
    "field/encoder_pooled",
    family="transformer",
    signature=Signature(
        inputs=(
            InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=29)),
            InputSpec(name="mask", dtype="int64", shape=("batch", "length"), distribution=Mask()),
        ),
        axes=(Axis(name="batch"), Axis(name="length", sample=8)),
    ),
)
def encoder_pooled() -> nn.Module:
    """The stock encoder, first token."""
    return Enc()


JUDGE = dict(length=[2, 5, 8, 20])
