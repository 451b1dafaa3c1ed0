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
    report="yeyupiaoling/MASR#64 (2023); older: pytorch/pytorch#48460",
    symptom="pack_padded_sequence in forward: padded steps leak or lengths are frozen",
)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.LSTM(6, 10, bidirectional=True, batch_first=True)
        self.o = nn.Linear(20, 3)

    def forward(self, x, lengths):
        p = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = self.l(p)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        return self.o(y)


@architecture(
    "field/packed",
    family="rnn",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", 9, 6)),
            InputSpec(name="lengths", dtype="int64", shape=("batch",), distribution=Integers(low=1, high=9)),
        )
    ),
)
def packed() -> nn.Module:
    """BiLSTM over packed sequences."""
    return Packed()
