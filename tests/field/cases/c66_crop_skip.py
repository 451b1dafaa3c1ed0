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
    report="segmentation_models.pytorch / U-Net odd sizes exports; pytorch/pytorch#139508 kind",
    symptom="skip connections padded by the difference of sizes that are odd or even",
)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.d1 = nn.Conv2d(3, 6, 3, padding=1)
        self.d2 = nn.Conv2d(6, 8, 3, padding=1)
        self.d3 = nn.Conv2d(8, 8, 3, padding=1)
        self.u = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.c = nn.Conv2d(16, 6, 3, padding=1)
        self.v = nn.ConvTranspose2d(6, 6, 2, stride=2)
        self.o = nn.Conv2d(12, 2, 1)

    def fit(self, x, like):
        dh, dw = like.shape[2] - x.shape[2], like.shape[3] - x.shape[3]
        if dh or dw:
            x = F.pad(x, [dw // 2, dw - dw // 2, dh // 2, dh - dh // 2])
        return x

    def forward(self, image):
        a = self.d1(image).relu()
        b = self.d2(F.max_pool2d(a, 2)).relu()
        c = self.d3(F.max_pool2d(b, 2)).relu()
        x = self.c(torch.cat([b, self.fit(self.u(c), b)], 1)).relu()
        return self.o(torch.cat([a, self.fit(self.v(x), a)], 1))


@architecture(
    "field/unet",
    family="segmentation",
    signature=Signature(
        inputs=(InputSpec(name="image", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=8, maximum=300, sample=32),
            Axis(name="width", minimum=8, maximum=300, sample=32),
        ),
    ),
)
def unet() -> nn.Module:
    """U-Net that pads its skips."""
    return UNet()


JUDGE = dict(height=[8, 9, 10, 11, 30, 32, 33, 34, 61], width=[8, 9, 10, 11, 32, 50, 63])
