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
    report="pytorch/pytorch#149275 kind; speaker nets that switch on batch size",
    symptom="a branch on a large batch (fast way for more than 16 rows)",
)


class BB(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(8, 8)

    def forward(self, x):
        y = self.l(x)
        alpha = 0.1 if x.shape[0] <= 16 else 0.2
        return F.leaky_relu(y, alpha)


@architecture(
    "field/batch_branch", family="mlp", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 8)),))
)
def batch_branch() -> nn.Module:
    """Another slope for large batches."""
    return BB()


JUDGE = dict(batch=[1, 2, 3, 16, 17, 64])
