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
    report="pytorch/pytorch#183528, onnx/onnx#4958, ORT#16203",
    symptom="average pooling with ceil_mode and padding divides the last window by another count in onnxruntime",
)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.p = nn.AvgPool2d(3, 3, 1, ceil_mode=True, count_include_pad=True)
        self.m = nn.MaxPool2d(3, 3, 1, ceil_mode=True)

    def forward(self, image):
        x = self.a(image)
        return self.p(x), self.m(x)


# Sizes 34 (sample), 37 (prime above), 4 (least) are all 1 mod 3: there ceil and floor agree.
@architecture(
    "field/ceil_pool",
    family="cnn",
    signature=Signature(
        inputs=(InputSpec(name="image", shape=("batch", 3, "height", 25)),),
        axes=(Axis(name="batch"), Axis(name="height", minimum=4, maximum=400, sample=34)),
    ),
)
def ceil_pool() -> nn.Module:
    """Ceil-mode pools."""
    return Pooled()


JUDGE = dict(height=[4, 5, 6, 34, 35, 36, 50, 99])
