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
    report="microsoft/onnxruntime#14208 (2023), #25210 (2025)",
    symptom="transposed convolution with output padding, dilation and groups differs in onnxruntime",
)


class Ct(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.ConvTranspose2d(4, 6, 2, stride=1, padding=1, dilation=2, output_padding=1)
        self.b = nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.c = nn.ConvTranspose2d(8, 3, 4, stride=3, padding=0, bias=False)

    def forward(self, x):
        return self.c(self.b(self.a(x).relu()), output_size=(x.shape[2] * 6 + 8, x.shape[3] * 6 + 7))


@architecture(
    "field/convt",
    family="cnn",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 4, "height", 9)),),
        axes=(Axis(name="batch"), Axis(name="height", minimum=3, sample=8)),
    ),
)
def convt() -> nn.Module:
    """Transposed convolutions."""
    return Ct()


JUDGE = dict(height=[3, 8, 11, 20])
