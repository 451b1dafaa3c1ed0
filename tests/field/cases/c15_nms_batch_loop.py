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
    report="ultralytics/ultralytics#21188",
    symptom="NMS in the graph: only the first image of a batch gets detections (loop over the batch unrolled)",
)


class Nms(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 5, 4, stride=4)

    def forward(self, image):
        p = self.c(image).flatten(2).transpose(1, 2)  # B, N, 5
        out = image.new_zeros(p.shape[0], 6, 5)
        for i in range(p.shape[0]):
            xy = p[i, :, :2].sigmoid() * 32
            wh = p[i, :, 2:4].sigmoid() * 10
            boxes = torch.cat([xy, xy + wh], 1)
            keep = torchvision.ops.nms(boxes, p[i, :, 4].sigmoid(), 0.5)[:6]
            out[i, : keep.shape[0]] = torch.cat([boxes[keep], p[i, keep, 4:].sigmoid()], 1)
        return out


@architecture(
    "field/nms_loop",
    family="detection",
    signature=Signature(inputs=(InputSpec(name="image", shape=("batch", 3, 32, 32)),)),
)
def nms_loop() -> nn.Module:
    """Detection with suppression for each image in a loop."""
    return Nms()
