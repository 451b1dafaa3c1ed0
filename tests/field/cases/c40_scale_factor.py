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
    report="pytorch/pytorch#124884 (2024), #31055 kind",
    symptom="interpolate by a fractional scale factor: coordinates follow the factor in eager and the rounded sizes in ONNX",
)


class Up(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image):
        x = self.c(image)
        return (
            F.interpolate(x, scale_factor=1.3, mode="bilinear", align_corners=False),
            F.interpolate(x, scale_factor=0.7, mode="nearest"),
            F.interpolate(x, scale_factor=1.5, mode="nearest-exact"),
            F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=True),
        )


@architecture(
    "field/up",
    family="cnn",
    signature=Signature(
        inputs=(InputSpec(name="image", shape=("batch", 3, "height", "width")),),
        axes=(Axis(name="batch"), Axis(name="height", minimum=4, sample=10), Axis(name="width", minimum=4, sample=12)),
    ),
)
def up() -> nn.Module:
    """Fractional factors."""
    return Up()


JUDGE = dict(height=[4, 5, 10, 33], width=[4, 7, 12, 29])
