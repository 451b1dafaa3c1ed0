"""Windows of eight, shifted where there is more than one."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "padding to windows, and no shift where the image is one window"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Linear(6, 4)

    def forward(self, x):
        h = self.a(x).permute(0, 2, 3, 1)
        batch, height, width, channels = h.shape
        h = F.pad(h, (0, 0, 0, -width % 8, 0, -height % 8))
        padded, wide = h.shape[1], h.shape[2]
        shift = 4 if min(padded, wide) > 8 else 0
        if shift:
            h = torch.roll(h, (-shift, -shift), (1, 2))
        windows = h.view(batch, padded // 8, 8, wide // 8, 8, channels).transpose(2, 3).reshape(-1, 64, channels)
        windows = (windows @ windows.transpose(1, 2) / 8).softmax(-1) @ windows
        h = (
            windows.view(batch, padded // 8, wide // 8, 8, 8, channels)
            .transpose(2, 3)
            .reshape(batch, padded, wide, channels)
        )
        if shift:
            h = torch.roll(h, (shift, shift), (1, 2))
        return self.b(h[:, :height, :width])


@architecture(
    "field/n55_shifted_windows",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=8, maximum=128, sample=24),
            Axis(name="width", minimum=8, maximum=128, sample=32),
        ),
    ),
)
def n55_shifted_windows() -> nn.Module:
    """Windows of eight, shifted where there is more than one."""
    return Net()


JUDGE = {"height": [8, 9, 16, 17, 31, 64, 100], "width": [8, 9, 16, 31, 33, 64, 101]}
