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
    report="microsoft/onnxruntime#19270 (2024), llvm/torch-mlir#4741 (2026)",
    symptom="recurrent layers with a given and a learned initial state, without projection",
)


class Rec(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.GRU(6, 10, num_layers=2, bidirectional=True)
        self.l = nn.LSTM(20, 12)
        self.r = nn.RNN(12, 5, nonlinearity="relu")
        self.h = nn.Parameter(torch.randn(1, 1, 12) * 0.1)
        self.c = nn.Parameter(torch.randn(1, 1, 12) * 0.1)

    def forward(self, x, state):
        y, s = self.g(x, state)
        b = x.shape[1]
        z, (h, c) = self.l(y, (self.h.expand(-1, b, -1).contiguous(), self.c.repeat(1, b, 1)))
        r, _ = self.r(z)
        return r, s, c


@architecture(
    "field/rnn_states",
    family="rnn",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("time", "batch", 6)), InputSpec(name="state", shape=(4, "batch", 10))),
        axes=(Axis(name="batch"), Axis(name="time", sample=7)),
    ),
)
def rnn_states() -> nn.Module:
    """GRU with a given state, LSTM with a learned one, plain RNN."""
    return Rec()


JUDGE = dict(time=[1, 2, 7, 20])
