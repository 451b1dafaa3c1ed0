"""A language model with weights kept as (in, out) and its head tied to its embedding."""

import math

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from app.architectures.plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = {"report": "our own", "symptom": "Conv1D layers of transformers, a tied head, an additive mask"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 16)
        self.places = nn.Embedding(64, 16)
        self.joint = Conv1D(48, 16)
        self.back = Conv1D(16, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids, attention_mask):
        length = input_ids.shape[1]
        x = self.tokens(input_ids) + self.places.weight[:length]
        q, k, v = self.joint(x).split(16, dim=-1)
        scores = q @ k.transpose(1, 2) / math.sqrt(16)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        allowed = causal & (attention_mask[:, None, :] > 0)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        return self.head(self.norm(x + self.back(scores.softmax(-1) @ v)))


@architecture(
    "field/n46_transposed_and_tied",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(
                name="input_ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=49)
            ),
            InputSpec(name="attention_mask", dtype="int64", shape=("batch", "length"), distribution=Mask()),
        ),
        axes=(Axis(name="batch"), Axis(name="length", maximum=64, sample=10)),
    ),
)
def n46_transposed_and_tied() -> nn.Module:
    """A language model with weights kept as (in, out) and its head tied to its embedding."""
    return Net()


JUDGE = {"length": [1, 2, 10, 64]}


def checkpoint(state):
    """Without the tied head, under a base model's prefix, and a number of the average beside."""
    kept = {f"transformer.{name}": value for name, value in state.items() if name != "head.weight"}
    return {**kept, "n_averaged": torch.tensor(3)}


OPTIONS = {"prefix": "transformer."}
