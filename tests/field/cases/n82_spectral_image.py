"""Fft2, shifted, cut by the size and brought back to an odd one."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "fft2, shifted, cut by the size and brought back to an odd one"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        h = torch.fft.rfft2(self.a(x), norm="ortho")
        h = h * torch.linspace(1.0, 0.1, h.shape[-1])
        return self.b(torch.fft.irfft2(h, s=x.shape[-2:], norm="ortho"))


@architecture(
    "field/n82_spectral_image",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=8, maximum=96, sample=24),
            Axis(name="width", minimum=8, maximum=96, sample=20),
        ),
    ),
)
def n82_spectral_image() -> nn.Module:
    """Fft2, shifted, cut by the size and brought back to an odd one."""
    return Net()


JUDGE = {"height": [8, 9, 16, 24, 31, 64, 90], "width": [8, 11, 20, 33, 64]}
