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
    report="microsoft/onnxscript#2407, pytorch/pytorch#112844",
    symptom="Tensor.unfold framing of audio cannot take a dynamic length",
)


class Frames(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(16, 8)
        self.register_buffer("window", torch.hann_window(16))

    def forward(self, wave):
        f = wave.unfold(-1, 16, 5) * self.window
        return self.lin(f).relu().mean(1)


@architecture(
    "field/frames",
    family="audio",
    signature=Signature(
        inputs=(InputSpec(name="wave", shape=("batch", "samples")),),
        axes=(Axis(name="batch"), Axis(name="samples", minimum=16, sample=100)),
    ),
)
def frames() -> nn.Module:
    """Framing by unfold."""
    return Frames()


JUDGE = dict(samples=[16, 17, 20, 21, 25, 100, 333])
