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
    report="pytorch/pytorch#177138, #157220; microsoft/onnxscript#2916",
    symptom="anti-aliased bicubic/bilinear resize differs after ONNX export (other cubic coefficient, edge weights not renormalised)",
)


class AntiAliased(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 4, 1)

    def forward(self, image):
        x = F.interpolate(self.a(image).relu(), size=(11, 13), mode="bicubic", antialias=True, align_corners=False)
        return F.interpolate(self.b(x), size=(5, 7), mode="bilinear", antialias=True)


@architecture(
    "field/aa", family="cnn", signature=Signature(inputs=(InputSpec(name="image", shape=("batch", 3, 29, 23)),))
)
def aa() -> nn.Module:
    """Downscaling with antialias."""
    return AntiAliased()
