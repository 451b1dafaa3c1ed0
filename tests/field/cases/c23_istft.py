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
    report="gemelo-ai/vocos#38 (2023), pytorch/pytorch#113067",
    symptom="irfft/istft vocoder head does not export or breaks at other lengths",
)


class Vocos(nn.Module):
    def __init__(self):
        super().__init__()
        self.pre = nn.Conv1d(6, 16, 3, padding=1)
        self.out = nn.Conv1d(16, 34, 1)
        self.register_buffer("window", torch.hann_window(32))

    def forward(self, mel):
        x = self.out(F.gelu(self.pre(mel)))
        mag, phase = x.chunk(2, 1)
        mag = mag.exp().clamp(max=100)
        spec = torch.complex(mag * phase.cos(), mag * phase.sin())
        frames = torch.fft.irfft(spec, 32, dim=1, norm="backward") * self.window[None, :, None]
        n = (mel.shape[2] - 1) * 8 + 32
        return F.fold(frames, (1, n), (1, 32), stride=(1, 8))[:, 0, 0]


@architecture(
    "field/vocos",
    family="tts",
    signature=Signature(
        inputs=(InputSpec(name="mel", shape=("batch", 6, "frames")),),
        axes=(Axis(name="batch"), Axis(name="frames", sample=10)),
    ),
)
def vocos() -> nn.Module:
    """Inverse transform head."""
    return Vocos()


JUDGE = dict(frames=[1, 2, 10, 31])
