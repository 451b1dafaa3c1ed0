"""What a training script leaves: weights among arguments, paths, numbers of NumPy and dates."""

import argparse
import collections
import datetime
import pathlib

import numpy as np
import torch
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Signature, architecture

CASE = {"report": "our own", "symptom": "objects of many kinds stand after the weights"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.norm(self.stem(x)).relu().mean((2, 3)))


@architecture(
    "field/n41_training_checkpoint",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=4, maximum=64, sample=16),
            Axis(name="width", minimum=4, maximum=64, sample=24),
        ),
    ),
)
def n41_training_checkpoint() -> nn.Module:
    """What a training script leaves: weights among arguments, paths, numbers of NumPy and dates."""
    return Net()


JUDGE = {"height": [4, 16, 33], "width": [5, 24]}


def checkpoint(state):
    """The file of a training run; wrapped for several processes, as its keys say."""
    optimizer = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
    return {
        "model": collections.OrderedDict((f"module.{name}", value) for name, value in state.items()),
        "optimizer": optimizer,
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs/1"), sizes=(16, 24)),
        "best": np.float64(0.71),
        "history": collections.defaultdict(list, {"loss": [np.float32(0.5)]}),
        "confusion": np.arange(6).reshape(2, 3),
        "saved": datetime.datetime(2026, 1, 2, 3, 4),
        "epoch": 12,
    }
