"""Everything after the first stop token is ignored."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "argmax over a comparison, cut by data"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 6)

    def forward(self, ids):
        stop = (ids == 0).int()
        after = stop.cumsum(1) - stop
        kept = (after == 0).unsqueeze(-1)
        return (self.table(ids) * kept).sum(1)


@architecture(
    "field/n32_first_stop_token",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=11)),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=64, sample=9),
        ),
    ),
)
def n32_first_stop_token() -> nn.Module:
    """Everything after the first stop token is ignored."""
    return Net()


JUDGE = {"length": [1, 9, 30]}


def extra(draw):
    stopped = draw()
    stopped["ids"][:, 0] = 0
    never = draw()
    never["ids"][:] = 5
    return [stopped, never]
