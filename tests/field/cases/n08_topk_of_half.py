"""k of topk follows the size."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "topk takes half of the length, at most ten"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)

    def forward(self, x):
        scores = self.b(self.a(x).tanh()).sum(-1)
        return scores.topk(min(10, max(1, x.shape[1] // 2)), dim=1).values


@architecture(
    "field/n08_topk_of_half",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=512, sample=12),
        ),
    ),
)
def n08_topk_of_half() -> nn.Module:
    """k of topk follows the size."""
    return Net()


JUDGE = {"length": [1, 2, 3, 12, 19, 20, 21, 40]}
