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
    report="snakers4/silero-vad (state in the model), pytorch/pytorch#140539",
    symptom="hidden state kept as a plain attribute between calls: the artifact is stateless or the state is the trace's",
)


class Vad(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.LSTMCell(6, 8)
        self.o = nn.Linear(8, 1)
        self.state = None

    def forward(self, frame):
        if self.state is None or self.state[0].shape[0] != frame.shape[0]:
            self.state = (torch.zeros(frame.shape[0], 8), torch.zeros(frame.shape[0], 8))
        self.state = self.c(frame, self.state)
        return self.o(self.state[0]).sigmoid()


@architecture("field/vad", family="stream", signature=Signature(inputs=(InputSpec(name="frame", shape=("batch", 6)),)))
def vad() -> nn.Module:
    """Streaming detector with state of its own."""
    return Vad()
