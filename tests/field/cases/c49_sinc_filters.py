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
    report="pyannote/speechbrain SincNet exports",
    symptom="filters are computed from two weights in forward; exporters fold them, names are lost",
)


class Sinc(nn.Module):
    def __init__(self):
        super().__init__()
        self.low = nn.Parameter(torch.linspace(30, 3000, 12).unsqueeze(1))
        self.band = nn.Parameter(torch.linspace(50, 400, 12).unsqueeze(1))
        n = torch.arange(-15, 0).float()
        self.register_buffer("n_", 2 * math.pi * n.view(1, -1) / 16000, persistent=False)
        self.register_buffer("window_", torch.hamming_window(31)[:15], persistent=False)
        self.o = nn.Conv1d(12, 4, 5, stride=2)
        self.n = nn.InstanceNorm1d(12, affine=True)

    def forward(self, wave):
        low = 30 + self.low.abs()
        high = torch.clamp(low + 50 + self.band.abs(), 30, 8000)
        left = (torch.sin(high @ self.n_) - torch.sin(low @ self.n_)) / (self.n_ / 2) * self.window_
        f = torch.cat([left, 2 * (high - low), left.flip(1)], 1) / (2 * (high - low))
        x = F.conv1d(wave.unsqueeze(1), f.unsqueeze(1), stride=3)
        return self.o(F.max_pool1d(self.n(x).abs(), 3))


@architecture(
    "field/sinc",
    family="audio",
    signature=Signature(
        inputs=(InputSpec(name="wave", shape=("batch", "samples")),),
        axes=(Axis(name="batch"), Axis(name="samples", minimum=200, sample=400)),
    ),
)
def sinc() -> nn.Module:
    """Learned band passes."""
    return Sinc()


JUDGE = dict(samples=[200, 400, 777])
