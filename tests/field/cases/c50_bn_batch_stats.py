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
    report="ONNX BatchNormalization training_mode issues (pytorch #75252 kind)",
    symptom="BatchNorm without running statistics uses the batch's in eval; the graph must too",
)


class Bn(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.BatchNorm2d(6, track_running_stats=False)
        self.g = nn.GroupNorm(3, 6)

    def forward(self, image):
        return self.g(self.b(self.c(image)).relu())


@architecture(
    "field/bn_batch", family="cnn", signature=Signature(inputs=(InputSpec(name="image", shape=("batch", 3, 9, 9)),))
)
def bn_batch() -> nn.Module:
    """Statistics of the batch."""
    return Bn()
