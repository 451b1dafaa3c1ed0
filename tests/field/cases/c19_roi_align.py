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
    report="pytorch/pytorch#175732 (PR #178377, #175895)",
    symptom="roi_align: dynamo export refused it; batch indices, aligned and sampling ratio must be mapped",
)


class Roi(nn.Module):
    def __init__(self, aligned: bool, ratio: int):
        super().__init__()
        self.c = nn.Conv2d(3, 6, 3, padding=1)
        self.o = nn.Linear(6 * 9, 4)
        self.aligned, self.ratio = aligned, ratio

    def forward(self, image, boxes):
        f = self.c(image)
        b, n = boxes.shape[:2]
        idx = torch.arange(b, dtype=boxes.dtype).view(b, 1, 1).expand(b, n, 1)
        xy = boxes[..., :2] * 20
        rois = torch.cat([idx, xy, xy + boxes[..., 2:] * 12], -1).view(-1, 5)
        r = torchvision.ops.roi_align(f, rois, (3, 3), 0.5, self.ratio, self.aligned)
        return self.o(r.flatten(1)).view(b, n, 4)


@architecture(
    "field/roi",
    family="detection",
    signature=Signature(
        inputs=(
            InputSpec(name="image", shape=("batch", 3, 24, 24)),
            InputSpec(name="boxes", shape=("batch", "boxes", 4), distribution=Uniform()),
        ),
        axes=(Axis(name="batch"), Axis(name="boxes", sample=5)),
    ),
)
def roi(aligned: bool = True, ratio: int = -1) -> nn.Module:
    """RoI heads."""
    return Roi(aligned, ratio)


JUDGE = dict(boxes=[1, 5, 17])
VARIANTS = [{}, {"aligned": False, "ratio": 2}]
