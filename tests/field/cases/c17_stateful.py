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
    report="pytorch/pytorch#140539",
    symptom="a buffer that forward advances: the traced module loses updates that no output needs",
)


class Stream(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(8, 8)
        self.register_buffer("memory", torch.zeros(1, 8))

    def forward(self, x):
        y = self.l(x) + self.memory
        self.memory = 0.9 * self.memory + 0.1 * y.mean(0, keepdim=True)
        return y.tanh()


@architecture("field/stateful", family="stream", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 8)),)))
def stateful() -> nn.Module:
    """A running memory."""
    return Stream()
