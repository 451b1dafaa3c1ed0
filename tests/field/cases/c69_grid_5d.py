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
    report="warmshao/FasterLivePortrait#95 (2024), pytorch/pytorch#100790 (2023)",
    symptom="grid_sample of volumes needs opset 20; below it export or file fails",
)


class Vol(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv3d(2, 4, 3, padding=1)
        self.t = nn.Linear(2, 12)

    def forward(self, volume):
        t = self.t(volume.mean((2, 3, 4))).view(-1, 3, 4) * 0.3 + torch.eye(3, 4)
        g = F.affine_grid(t, list(volume.shape), align_corners=False)
        return F.grid_sample(self.c(volume), g, mode="bilinear", padding_mode="border", align_corners=False)


@architecture(
    "field/grid5d", family="video", signature=Signature(inputs=(InputSpec(name="volume", shape=("batch", 2, 5, 6, 7)),))
)
def grid5d() -> nn.Module:
    """Volumes under an affine map."""
    return Vol()
