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
    report="microsoft/onnxscript#989 (2023), pytorch/pytorch#78442, rwth-i6/returnn#1328 (2023)",
    symptom="floor division, remainder and shifts of negative integers truncate instead of flooring",
)


class Bucket(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(16, 6)
        self.o = nn.Linear(6, 3)

    def forward(self, offsets, amounts):
        a = torch.div(offsets, 7, rounding_mode="floor").remainder(16)
        b = (offsets >> 2) % 16
        c = torch.div(offsets, 5, rounding_mode="trunc").fmod(8) + 8
        f = torch.remainder(amounts, 1.5) + torch.fmod(amounts, 0.7) + torch.floor_divide(amounts, 0.9)
        return self.o(self.e(a) + self.e(b) + self.e(c)) + f.unsqueeze(-1), a, b, c


@architecture(
    "field/int_division",
    family="tabular",
    signature=Signature(
        inputs=(
            InputSpec(name="offsets", dtype="int64", shape=("batch", 10), distribution=Integers(low=-1000, high=1000)),
            InputSpec(name="amounts", shape=("batch", 10), distribution=Normal(mean=0.0, std=3.0)),
        )
    ),
)
def int_division() -> nn.Module:
    """Signed offsets in buckets."""
    return Bucket()
