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
    report="PaddleOCR-style recognisers; ccdv-ai/convert_checkpoint_to_lsg#15 kind",
    symptom="tall crops are turned by 90 degrees: a branch on the relation of two sizes",
)


class Ocr(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.o = nn.Linear(8, 5)

    def forward(self, crop):
        h, w = crop.shape[2:]
        if h > w:
            crop = crop.rot90(1, (2, 3))
        f = self.c(crop).relu()
        return self.o(f.amax(2).transpose(1, 2)).mean(1) + self.o(f.mean((2, 3)))


@architecture(
    "field/tall",
    family="ocr",
    signature=Signature(
        inputs=(InputSpec(name="crop", shape=("batch", 1, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=32, maximum=256, sample=32),
            Axis(name="width", minimum=64, maximum=2048, sample=320),
        ),
    ),
)
def tall() -> nn.Module:
    """Recogniser that turns tall crops."""
    return Ocr()


JUDGE = dict(height=[32, 48, 256], width=[64, 100, 320])
