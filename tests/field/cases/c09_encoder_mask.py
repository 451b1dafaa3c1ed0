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
    report="pytorch/pytorch#97111 (2023), #86120",
    symptom="nn.TransformerEncoder with a padding mask: the fused way of inference gives zeros (or fewer columns) at padding, the exported plain way something else",
)


class Enc(nn.Module):
    def __init__(self, nested: bool):
        super().__init__()
        self.emb = nn.Embedding(30, 24)
        self.enc = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(24, 4, 48, dropout=0.1, batch_first=True), 2, enable_nested_tensor=nested
        )
        self.o = nn.Linear(24, 5)

    def forward(self, ids, mask):
        x = self.enc(self.emb(ids), src_key_padding_mask=mask == 0)
        return self.o(x)


@architecture(
    "field/encoder_mask",
    family="transformer",
    signature=Signature(
        inputs=(
            InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=29)),
            InputSpec(name="mask", dtype="int64", shape=("batch", "length"), distribution=Mask()),
        ),
        axes=(Axis(name="batch"), Axis(name="length", sample=8)),
    ),
)
def encoder_mask(nested: bool = True) -> nn.Module:
    """The stock encoder with padding."""
    return Enc(nested)


JUDGE = dict(length=[2, 5, 8, 20])
VARIANTS = [{}, {"nested": False}]
