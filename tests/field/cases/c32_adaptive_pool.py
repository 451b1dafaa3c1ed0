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
    report="pytorch/pytorch#120477 (2024), #74034",
    symptom="adaptive average pooling to sizes that do not divide the input is refused, or wrong for dynamic sizes",
)


class Ppm(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 6, 3, padding=1)
        self.o = nn.Conv2d(12, 4, 1)

    def forward(self, image):
        f = self.c(image)
        g = F.interpolate(F.adaptive_avg_pool2d(f, (3, 6)), size=f.shape[2:], mode="bilinear", align_corners=False)
        return self.o(torch.cat([f, g], 1))


@architecture(
    "field/ppm",
    family="segmentation",
    signature=Signature(inputs=(InputSpec(name="image", shape=("batch", 3, 20, 25)),)),
)
def ppm() -> nn.Module:
    """Pyramid pooling, sizes that do not divide."""
    return Ppm()
