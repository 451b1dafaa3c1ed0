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
    report="any: sample shape that the model does not take (timm img_size, wrong option)",
    symptom="the model's own forward raises on the sample: the client must be told that, not 'unforeseen'",
)


class Bad(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        self.pos = nn.Parameter(torch.zeros(1, size, 8))
        self.l = nn.Linear(8, 3)

    def forward(self, x):
        if x.shape[1] != self.pos.shape[1]:
            raise ValueError(f"Input length {x.shape[1]} does not match the model ({self.pos.shape[1]}).")
        return self.l(x + self.pos).mean(1)


@architecture(
    "field/bad_size", family="vision", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 12, 8)),))
)
def bad_size(size: int = 16) -> nn.Module:
    """Positions for another size than the signature says."""
    return Bad(size)
