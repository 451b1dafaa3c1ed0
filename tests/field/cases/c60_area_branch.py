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
    report="ccdv-ai/convert_checkpoint_to_lsg#15 (2026) kind; attention slicing of diffusion nets",
    symptom="another way where the product of two sizes exceeds a limit",
)


class Area(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding=1)
        self.o = nn.Linear(8, 5)

    def forward(self, image):
        x = self.c(image)
        h, w = x.shape[2:]
        if h * w > 4096:
            x = x.relu()
        else:
            x = x.tanh()
        return self.o(x.mean((2, 3)))


@architecture(
    "field/area",
    family="cnn",
    signature=Signature(
        inputs=(InputSpec(name="image", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=8, maximum=256, sample=16),
            Axis(name="width", minimum=8, maximum=256, sample=16),
        ),
    ),
)
def area() -> nn.Module:
    """Large images go another way."""
    return Area()


JUDGE = dict(height=[8, 16, 64, 128], width=[8, 16, 64, 128])
