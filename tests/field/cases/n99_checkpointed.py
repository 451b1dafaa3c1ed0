"""Activation checkpointing, an einsum and a lock that cannot be copied."""

import threading

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "activation checkpointing, an einsum and a lock that cannot be copied"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)
        self.lock = threading.Lock()

    def forward(self, x):
        h = torch.utils.checkpoint.checkpoint(self.a, x, use_reentrant=False)
        with self.lock:
            h = torch.einsum("bnd,bmd->bnm", h, h).softmax(-1) @ h
        return {"out": self.b(h), "nothing": None}


@architecture(
    "field/n99_checkpointed",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n99_checkpointed() -> nn.Module:
    """Activation checkpointing, an einsum and a lock that cannot be copied."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
