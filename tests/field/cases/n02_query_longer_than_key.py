"""A causal offset only where queries are more than keys."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "cross attention with another mask where q > k"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(8, 8)
        self.k = nn.Linear(8, 8)

    def forward(self, q, k):
        scores = self.q(q) @ self.k(k).transpose(1, 2)
        if q.shape[1] > k.shape[1]:
            scores = scores * 0.5
        return scores.softmax(-1) @ k


@architecture(
    "field/n02_query_longer_than_key",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="q", shape=("batch", "queries", 8)),
            InputSpec(name="k", shape=("batch", "keys", 8)),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="queries", maximum=64, sample=6),
            Axis(name="keys", maximum=64, sample=9),
        ),
    ),
)
def n02_query_longer_than_key() -> nn.Module:
    """A causal offset only where queries are more than keys."""
    return Net()


JUDGE = {"queries": [1, 6, 9, 10, 40], "keys": [1, 6, 9, 30]}
