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

from torch.nn.utils import weight_norm

CASE = dict(
    report="2noise/ChatTTS#86 (2024), myshell-ai/OpenVoice#219 (2024): torch.nn.utils.weight_norm",
    symptom="vocoder layers with the classic weight norm (weight_g, weight_v)",
)


class Voc(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = weight_norm(nn.Conv1d(6, 8, 5, padding=2))
        self.u = weight_norm(nn.ConvTranspose1d(8, 4, 4, 2, 1))
        self.o = nn.Conv1d(4, 1, 3, padding=1)

    def forward(self, mel):
        return self.o(F.leaky_relu(self.u(F.leaky_relu(self.a(mel), 0.1)), 0.1)).tanh()


@architecture(
    "field/old_wn",
    family="tts",
    signature=Signature(
        inputs=(InputSpec(name="mel", shape=("batch", 6, "frames")),),
        axes=(Axis(name="batch"), Axis(name="frames", minimum=3, sample=10)),
    ),
)
def old_wn() -> nn.Module:
    """Classic weight norm."""
    return Voc()


JUDGE = dict(frames=[3, 10, 40])
