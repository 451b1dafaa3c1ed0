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
    report="ultralytics/ultralytics#25843",
    symptom="head keeps anchors of the last size and makes them anew when the size changes; the graph keeps the traced ones",
)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 6, 4, stride=4)
        self.shape = None
        self.anchors = torch.empty(0)

    def forward(self, image):
        p = self.c(image)
        if self.shape != p.shape[2:]:
            h, w = p.shape[2:]
            y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            self.anchors = torch.stack([x, y], 0).flatten(1)
            self.shape = p.shape[2:]
        q = p.flatten(2)
        xy = (q[:, :2].sigmoid() + self.anchors) * 4
        return torch.cat([xy, q[:, 2:4].exp() * 4, q[:, 4:].sigmoid()], 1)


@architecture(
    "field/anchor_cache",
    family="detection",
    signature=Signature(
        inputs=(InputSpec(name="image", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=8, sample=32, multiple_of=4),
            Axis(name="width", minimum=8, sample=40, multiple_of=4),
        ),
    ),
)
def anchor_cache() -> nn.Module:
    """Anchors cached by size."""
    return Head()


JUDGE = dict(height=[8, 32, 48], width=[8, 40, 64])
