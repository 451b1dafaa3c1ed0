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
    report="microsoft/onnxruntime#20801 (2024), #23878 (2025)",
    symptom="circular, reflect and replicate padding, negative padding (crop), even kernels with same padding",
)


class Pads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=2, padding_mode="circular")
        self.b = nn.Conv2d(6, 6, 4, padding="same", padding_mode="reflect")
        self.c = nn.Conv2d(6, 4, (2, 5), padding="same", dilation=(1, 2))

    def forward(self, image):
        x = self.b(self.a(image).relu())
        x = F.pad(x, (-1, 2, 1, -2), mode="constant", value=0.5)
        return self.c(F.pad(x, (2, 1, 0, 3), mode="replicate"))


@architecture(
    "field/pads",
    family="cnn",
    signature=Signature(
        inputs=(InputSpec(name="image", shape=("batch", 3, "height", 12)),),
        axes=(Axis(name="batch"), Axis(name="height", minimum=6, sample=10)),
    ),
)
def pads() -> nn.Module:
    """All paddings."""
    return Pads()


JUDGE = dict(height=[6, 10, 23])
