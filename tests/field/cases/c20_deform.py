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

import torchvision

CASE = dict(
    report="pytorch/pytorch#185195 (2026), microsoft/onnxruntime#22060 (2024)",
    symptom="deformable convolution has no exporter, or ORT has no kernel",
)


class Dcn(nn.Module):
    def __init__(self):
        super().__init__()
        self.off = nn.Conv2d(4, 18, 3, padding=1)
        self.msk = nn.Conv2d(4, 9, 3, padding=1)
        self.d = torchvision.ops.DeformConv2d(4, 6, 3, padding=1)

    def forward(self, x):
        return self.d(x, self.off(x), self.msk(x).sigmoid())


@architecture("field/dcn", family="cnn", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 4, 12, 12)),)))
def dcn() -> nn.Module:
    """Modulated deformable convolution."""
    return Dcn()
